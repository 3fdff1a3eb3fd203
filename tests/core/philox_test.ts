/** Philox4x32-10 against the known answers of Random123 (kat_vectors), and the streams made of it. */
import { expect, test } from "vitest";
import { keeps, philox4x32, Random } from "../../src/core/philox.ts";

const hex = (words: readonly number[]): string => words.map((w) => w.toString(16).padStart(8, "0")).join(" ");

test.each<[[number, number, number, number], [number, number], string]>([
  [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
  [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
  [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], "d16cfe09 94fdcceb 5001e420 24126ea1"],
])("philox4x32(%j, %j)", (counter, key, want) => {
  expect(hex(philox4x32(counter, key))).toBe(want);
});

test("dropout keeps the share it should, and other seeds and streams keep other elements", () => {
  const share = (seed: [number, number], stream: number): boolean[] =>
    Array.from({ length: 20000 }, (_, i) => keeps(seed, stream, i, 0.3));
  const a = share([1, 2], 0), kept = a.filter((k) => k).length;
  // Binomial(20000, 0.7): 65 is one standard deviation.
  expect(Math.abs(kept - 14000)).toBeLessThan(5 * 65);
  expect(share([1, 2], 0)).toEqual(a);
  for (const other of [share([1, 3], 0), share([2, 2], 0), share([1, 2], 1)]) {
    // Two independent masks agree on 0.7² + 0.3² = 58 % of the elements.
    expect(Math.abs(other.filter((k, i) => k === a[i]).length - 11600)).toBeLessThan(5 * 70);
  }
});

test("Random's words are those of its counters", () => {
  const random = new Random(2 ** 40 + 5, 3);
  for (let n = 0; n < 3000; n++) {
    const want = philox4x32([n, 0, 3, 1], [5, 256]);
    expect([random.u32(), random.u32(), random.u32(), random.u32()]).toEqual(want);
  }
});

test("Random repeats from its seed and has the moments of its distributions", () => {
  const a = new Random(7), b = new Random(7), other = new Random(7, 1), n = 20000;
  const x = Array.from({ length: n }, () => a.normal());
  expect(Array.from({ length: n }, () => b.normal())).toEqual(x);
  expect(other.normal()).not.toBe(x[0]);
  const mean = x.reduce((s, v) => s + v, 0) / n, square = x.reduce((s, v) => s + v * v, 0) / n;
  expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(n));
  expect(Math.abs(square - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
  const u = Array.from({ length: n }, () => a.uniform());
  expect(u.every((v) => v >= 0 && v < 1)).toBe(true);
  expect(Math.abs(u.reduce((s, v) => s + v, 0) / n - 0.5)).toBeLessThan(5 * Math.sqrt(1 / 12 / n));
});
