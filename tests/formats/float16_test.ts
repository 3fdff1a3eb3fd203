import { expect, test } from "vitest";
import { fp8Values, fromBf16, fromHalf, halves, toBf16, toHalf } from "../../src/formats/float16.ts";

/** The nearest of all values to x, ties to the even index: slow, and nothing like the code under test. */
function nearest(values: ArrayLike<number>, x: number): number {
  let [low, high] = [0, values.length - 1];
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (values[mid]! <= x) low = mid;
    else high = mid;
  }
  const [below, above] = [x - values[low]!, values[high]! - x];
  if (below === above) return low % 2 ? high : low;
  return below < above ? low : high;
}

test("every half survives the way to f32 and back", () => {
  for (let h = 0; h < 65536; h++) {
    if (Number.isNaN(fromHalf(h))) expect(h & 0x7fff).toBeGreaterThan(0x7c00);
    else if (toHalf(fromHalf(h)) !== h) expect.unreachable(`${h}`);
  }
  expect([fromHalf(0x3c00), fromHalf(0xc000), fromHalf(1), fromHalf(0x7bff)]).toEqual([1, -2, 2 ** -24, 65504]);
});

test("toHalf() rounds to the nearest half, ties to even", () => {
  const values = halves().slice(0, 0x7c00); // finite and positive, ascending
  for (let h = 0; h + 1 < values.length; h++) {
    const mid = (values[h]! + values[h + 1]!) / 2;
    for (const x of [mid, Math.fround(mid * (1 - 2 ** -20)), Math.fround(mid * (1 + 2 ** -20))]) {
      if (toHalf(x) !== nearest(values, x)) expect.unreachable(`${x}`);
      if (toHalf(-x) !== (nearest(values, x) | 0x8000)) expect.unreachable(`${-x}`);
    }
  }
  expect([65519, 65520, Infinity, -Infinity, NaN].map(toHalf)).toEqual([0x7bff, 0x7c00, 0x7c00, 0xfc00, 0x7e00]);
});

test("toBf16() rounds to the nearest bfloat16, ties to even, and keeps NaN", () => {
  for (let b = 0; b < 0x7f7f; b += 7) {
    const [low, high] = [fromBf16(b), fromBf16(b + 1)];
    const mid = Math.fround((low + high) / 2);
    expect(toBf16(low)).toBe(b);
    expect(toBf16(mid)).toBe(b % 2 ? b + 1 : b);
    expect(toBf16(-mid)).toBe((b % 2 ? b + 1 : b) | 0x8000);
  }
  expect(Number.isNaN(fromBf16(toBf16(NaN)))).toBe(true);
  expect(toBf16(3.4e38)).toBe(0x7f80);
});

test("fp8 e4m3 has the values of the OCP specification", () => {
  const v = fp8Values();
  expect([v[0x7e], v[0x08], v[0x07], v[0x01], v[0x38], v[0xb8]]).toEqual([448, 2 ** -6, 7 * 2 ** -9, 2 ** -9, 1, -1]);
  expect([v[0x7f], v[0xff]].every(Number.isNaN)).toBe(true);
});
