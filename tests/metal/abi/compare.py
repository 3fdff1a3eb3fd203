#!/usr/bin/env python3
"""Compares two result files of abi_test: compare.py A B. Relative norms per result; exit 1 when one is off by more than its
type may differ between two machines (the last bits of exp and of sums)."""
import math
import struct
import sys

# f32, bf16, f16, u8: a rounding that falls the other way moves one element by 2^-8 or 2^-11 of itself
TOLERANCE = {0: 2e-6, 1: 1e-3, 2: 2e-4, 4: 0.0}


def read(path):
    data, at, out = open(path, 'rb').read(), 0, []
    while at < len(data):
        name = data[at:at + 56].split(b'\0')[0].decode()
        dtype, count = struct.unpack_from('<II', data, at + 56)
        out.append((name, dtype, struct.unpack_from(f'<{count}f', data, at + 64)))
        at += 64 + 4 * count
    return out


def main(a, b):
    left, right, bad, worst = read(a), read(b), 0, 0.0
    if not left or [r[:2] for r in left] != [r[:2] for r in right]:
        print('the files hold different results')
        return 1
    for (name, dtype, x), (_, _, y) in zip(left, right):
        error = math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y))) / (math.sqrt(sum(p * p for p in x)) or 1)
        worst = max(worst, error)
        if not error <= TOLERANCE[dtype]:
            bad += 1
            print(f'  {name} is off by {error:.1e} of its norm')
    print(f'{len(left) - bad} results agree, {bad} differ; the largest difference is {worst:.1e}')
    return 1 if bad else 0


sys.exit(main(*sys.argv[1:]))
