// Packing of op(B) into panels of NR columns, k-major, zero-padded: weights are decoded here, a strip at a time.
import { bytesOf, decode } from "./decode";
import { words } from "./job";
import { MR, NR } from "./micro";

/** Stores the transpose of the 4×4 block whose rows start at s0..s3: four vectors `step` bytes apart. */
// @ts-ignore: decorator
@inline
function transpose4(s0: usize, s1: usize, s2: usize, s3: usize, dst: usize, step: usize): void {
  const a = v128.load(s0), b = v128.load(s1), c = v128.load(s2), d = v128.load(s3);
  const ab = v128.shuffle<i32>(a, b, 0, 4, 1, 5), cd = v128.shuffle<i32>(c, d, 0, 4, 1, 5);
  const ef = v128.shuffle<i32>(a, b, 2, 6, 3, 7), gh = v128.shuffle<i32>(c, d, 2, 6, 3, 7);
  v128.store(dst, v128.shuffle<i64>(ab, cd, 0, 2));
  v128.store(dst + step, v128.shuffle<i64>(ab, cd, 1, 3));
  v128.store(dst + 2 * step, v128.shuffle<i64>(ef, gh, 0, 2));
  v128.store(dst + 3 * step, v128.shuffle<i64>(ef, gh, 1, 3));
}

/** Rows of a strip that is `width` elements across, kc long: dst[k · width + r] = src[r · ld + k], ld in bytes. */
function transposeStrip(src: usize, ld: usize, rows: i32, kc: i32, dst: usize, width: i32): void {
  const step = words(width);
  let r = 0;
  for (; r + 4 <= rows; r += 4) {
    const s = src + <usize>r * ld;
    let d = dst + words(r), k = 0;
    for (; k + 4 <= kc; k += 4, d += 4 * step) {
      const p = s + words(k);
      transpose4(p, p + ld, p + 2 * ld, p + 3 * ld, d, step);
    }
    for (; k < kc; k++, d += step) {
      const p = s + words(k);
      for (let i = 0; i < 4; i++) store<f32>(d + words(i), load<f32>(p + <usize>i * ld));
    }
  }
  for (; r < rows; r++) {
    const s = src + <usize>r * ld;
    let d = dst + words(r);
    for (let k = 0; k < kc; k++, d += step) store<f32>(d, load<f32>(s + words(k)));
  }
  for (; r < width; r++) {
    let d = dst + words(r);
    for (let k = 0; k < kc; k++, d += step) store<f32>(d, 0);
  }
}

/**
 * Panels of b's rows n0..n0+nc, elements k0..k0+kc of each (b is [N,K], used transposed).
 * `row` is the bytes of a row; `strip` holds NR · kc floats.
 */
export function packTransposed(b: usize, type: i32, row: usize, k0: i32, kc: i32, n0: i32, nc: i32, dst: usize, strip: usize): void {
  const skip = bytesOf(type, k0);
  for (let j = 0; j < nc; j += NR, dst += words(NR * kc)) {
    const rows = min(NR, nc - j), from = b + <usize>(n0 + j) * row + skip;
    if (type === 0) transposeStrip(from, row, rows, kc, dst, NR);
    else {
      for (let r = 0; r < rows; r++) decode(type, from + <usize>r * row, strip + words(r * kc), kc);
      transposeStrip(strip, words(kc), rows, kc, dst, NR);
    }
  }
}

/** Panels of b's columns n0..n0+nc, rows k0..k0+kc (b is [K,N]); `strip` holds nc floats. */
export function packPlain(b: usize, type: i32, row: usize, k0: i32, kc: i32, n0: i32, nc: i32, dst: usize, strip: usize): void {
  const skip = bytesOf(type, n0), panel = words(NR * kc);
  const whole = nc - nc % NR;
  for (let k = 0; k < kc; k++, dst += words(NR)) {
    let s = b + <usize>(k0 + k) * row + skip;
    if (type !== 0) {
      decode(type, s, strip, nc);
      s = strip;
    }
    let d = dst, j = 0;
    for (; j < whole; j += NR, d += panel) {
      for (let q = 0; q < NR; q += 4, s += 16) v128.store(d + words(q), v128.load(s));
    }
    if (j < nc) {
      for (let q = 0; q < NR; q++, s += 4) store<f32>(d + words(q), j + q < nc ? load<f32>(s) : 0);
    }
  }
}

/** Panels of MR rows of op(A) = a transposed (a is [K,M], f32): rows m0..m0+mc, k0..k0+kc. */
export function packA(a: usize, row: usize, k0: i32, kc: i32, m0: i32, mc: i32, dst: usize): void {
  const panel = words(MR * kc);
  const whole = mc - mc % MR;
  for (let k = 0; k < kc; k++, dst += words(MR)) {
    let s = a + <usize>(k0 + k) * row + words(m0), d = dst, i = 0;
    if (MR === 4) { for (; i < whole; i += MR, d += panel, s += 16) v128.store(d, v128.load(s)); }
    else if (MR === 2) { for (; i < whole; i += MR, d += panel, s += 8) store<u64>(d, load<u64>(s)); }
    if (i < mc) {
      for (let q = 0; q < MR; q++, s += 4) store<f32>(d + words(q), i + q < mc ? load<f32>(s) : 0);
    }
  }
}
