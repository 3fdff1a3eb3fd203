/** The reference's element types against the platform's halves, brute force, and ggml's bytes. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import type { DType } from "../../src/core/dtype.ts";
import { decode, encode, fromBf16, fromF16, fromFp8, toBf16, toF16, toFp8 } from "./codec.ts";

/** Typed by hand: TypeScript's libraries of the three runtimes do not agree on it yet. */
const Half = (globalThis as unknown as {
  Float16Array: new (x: number[] | ArrayBufferLike) => ArrayLike<number> & { buffer: ArrayBuffer };
})
  .Float16Array;

const bitsOf = (x: number): number => new Uint16Array(new Half([x]).buffer)[0];

test("every f16 decodes as the platform's Float16Array does, and encodes back", () => {
  const all = new Uint16Array(65536).map((_, i) => i), values = new Half(all.buffer);
  for (let i = 0; i < 65536; i++) {
    if (Number.isNaN(values[i])) expect(fromF16(i)).toBeNaN();
    else if (fromF16(i) !== values[i] || toF16(values[i]) !== i) throw new Error(`bits ${i}: ${values[i]}`);
  }
});

test("f16 rounds to nearest even as the platform does", () => {
  const random = new Random(1);
  for (let i = 0; i < 20000; i++) {
    const x = random.normal() * 2 ** (random.below(44) - 27);
    if (toF16(x) !== bitsOf(x)) throw new Error(`${x}`);
  }
  for (const x of [65504, 65519.99, 65520, 1e9, 2 ** -24, 2 ** -25, 1.0000001 * 2 ** -25, 2049, 2051, -0, 1e-30]) {
    expect(toF16(x), String(x)).toBe(bitsOf(x));
  }
});

test("bf16 is the nearest of its neighbours, even when halfway", () => {
  const random = new Random(2);
  for (let i = 0; i < 5000; i++) {
    const x = Math.fround(random.normal() * 10), b = toBf16(x), d = Math.abs(fromBf16(b) - x);
    for (const near of [b - 1, b + 1]) expect(Math.abs(fromBf16(near) - x)).toBeGreaterThanOrEqual(d);
  }
  expect([toBf16(1 + 2 ** -8), toBf16(1 + 3 * 2 ** -8), toBf16(NaN)]).toEqual([0x3f80, 0x3f82, 0x7fc0]);
});

test("fp8 e4m3 has OCP's values and rounds to the nearest of them", () => {
  expect([0x38, 0x01, 0x08, 0x7e, 0xfe].map(fromFp8)).toEqual([1, 2 ** -9, 2 ** -6, 448, -448]);
  expect(fromFp8(0x7f)).toBeNaN();
  const table = Array.from({ length: 127 }, (_, i) => fromFp8(i)), random = new Random(3);
  for (let i = 0; i < 127; i++) expect(toFp8(table[i])).toBe(i);
  for (let i = 0; i < 3000; i++) {
    const x = Math.abs(random.normal()) * 2 ** (random.below(18) - 10),
      best = Math.min(...table.map((v) => Math.abs(v - x)));
    expect(Math.abs(fromFp8(toFp8(x)) - x), String(x)).toBe(best);
  }
  expect([toFp8(1e9), toFp8(-1e9), toFp8(1.0625), toFp8(1.1875)]).toEqual([0x7e, 0xfe, 0x38, 0x3a]);
});

const golden = new URL("../../../shared/golden-quants/", import.meta.url);
describe.skipIf(!existsSync(golden))("ggml's golden bytes (skipped without ../shared/golden-quants)", () => {
  const own: [DType, string][] = [["q8_0", "q8_0"], ["q4_0", "q4_0"], ["q4_1", "q4_1"], ["bf16", "bf16"], [
    "f16",
    "f16",
  ]];
  test.each([...own, ["q4_k", "q4_K"], ["q6_k", "q6_K"], ["iq4_xs", "iq4_xs"]] as [DType, string][])(
    "%s decodes to ggml's values",
    (dtype, file) => {
      const bytes = readFileSync(new URL(`${file}.bin`, golden)), raw = readFileSync(new URL(`${file}.f32`, golden));
      const want = new Float32Array(new Uint8Array(raw).buffer);
      expect(Float32Array.from(decode(dtype, new Uint8Array(bytes), want.length))).toEqual(want);
    },
  );

  test.each(["bf16", "f16"] as const)("%s encodes to ggml's bytes", (dtype) => {
    const input = new Float32Array(new Uint8Array(readFileSync(new URL("input.f32", golden))).buffer);
    const got = new Uint8Array(input.length * 2);
    encode(dtype, input, got);
    expect([...got]).toEqual([...readFileSync(new URL(`${dtype}.bin`, golden))]);
  });
});
