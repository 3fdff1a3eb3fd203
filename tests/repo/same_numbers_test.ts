/** The comparison of lists of numbers that every test uses in place of Vitest's own: it may be quicker, and never milder. */
import { describe, expect, test } from "vitest";
import { sameNumbers } from "../same_numbers.ts";

describe("lists that are equal", () => {
  const lists = [[], [1, NaN, -0], new Float64Array([1, NaN, -0]), new Uint8Array(3), new Int32Array([7])];
  test.each(lists)("%o", (list) => {
    expect(sameNumbers(list, list.slice())).toBe(true);
  });
});

describe("what differs is left to Vitest, which fails", () => {
  const pairs: [string, unknown, unknown][] = [
    ["a number", new Float32Array([1, 2]), new Float32Array([1, 3])],
    ["the last of many", new Uint32Array(70_000), new Uint32Array(70_000).fill(1, 69_999)],
    ["the sign of zero", new Float64Array([0]), new Float64Array([-0])],
    ["NaN", [NaN], [0]],
    ["a length", [1, 2], [1]],
    ["a type", new Uint8Array([1]), new Int8Array([1])],
    ["a list and a typed one", [1], new Float64Array([1])],
    ["a number and its text", [1], ["1"]],
    ["a number and nothing", [1], null],
    [
      "a number deep inside",
      new Map([["x", { y: new Float64Array([1, 2]) }]]),
      new Map([["x", { y: new Float64Array([1, 3]) }]]),
    ],
  ];
  test.each(pairs)("%s", (_, a, b) => {
    expect(sameNumbers(a, b)).toBeUndefined();
    expect(() => expect(a).toEqual(b)).toThrow("to deeply equal");
    expect(a).not.toEqual(b);
  });
});

test("other values are not for it to judge", () => {
  for (const x of [1, "a", null, undefined, {}, new DataView(new ArrayBuffer(2)), ["a"], [[1]]]) {
    expect(sameNumbers(x, x)).toBeUndefined();
  }
});
