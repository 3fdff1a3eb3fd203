/** noise: uniform numbers from Philox's words, the same on every backend, as wide as each row's magnitude. */
import { expect, test } from "vitest";
import { philox4x32, symmetric } from "../../src/core/philox.ts";
import { type Case, input, ints, output, testOp } from "./harness.ts";

function noiseCase(N: number, D: number, seed: [number, number], stream: number): Case {
  const size = Array.from({ length: N }, (_, i) => 0.1 * i);
  return {
    name: `[${N},${D}] stream ${stream}`,
    tensors: { out: output([N, D]), x: input([N, D]), magnitude: input([N], size, "f32"), seed: ints(...seed) },
    run: (be, { out, x, magnitude, seed }) => be.noise(out, x, magnitude, seed, stream),
    formula: ({ x, magnitude }) => ({
      out: x.map((v, i) => {
        const word = philox4x32([i >> 2, stream, 0, 0], [seed[0] >>> 0, seed[1] >>> 0])[i % 4];
        return v + magnitude[Math.floor(i / D)] * ((word + 0.5) / 2 ** 31 - 1);
      }),
    }),
  };
}

testOp("noise", [noiseCase(1, 1, [1, 2], 0), noiseCase(3, 5, [7, 0], 3), noiseCase(17, 131, [-5, 12], 4000000000)]);

test("symmetric numbers are centred, spread evenly, and never reach the ends", () => {
  const x = Array.from({ length: 4000 }, (_, i) => symmetric([3, 4], 1, i));
  const mean = x.reduce((a, b) => a + b, 0) / x.length, square = x.reduce((a, b) => a + b * b, 0) / x.length;
  expect(Math.abs(mean)).toBeLessThan(0.03); // three deviations of a mean of 4000: 3/√12000
  expect(Math.abs(square - 1 / 3)).toBeLessThan(0.015);
  expect(Math.max(...x.map(Math.abs))).toBeLessThan(1);
});
