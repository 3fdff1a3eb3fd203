/** rope: rotation of pairs (i, i + rotary/2) as complex numbers. */
import type { RopeOpts } from "../../src/core/backend.ts";
import { type Case, inout, input, ints, testOp, type Values } from "./harness.ts";

function rotate(heads: number, d: number, o: RopeOpts) {
  return ({ x, pos, freqs }: Values): Record<string, Float64Array> => {
    const out = x.slice(), half = freqs.length;
    for (let row = 0; row < x.length / d; row++) {
      for (let i = 0; i < half; i++) {
        // (re + i·im) · factor · e^(i·sign·θ)
        const angle = o.sign * pos[Math.floor(row / heads)] * freqs[i], re = x[row * d + i], im = x[row * d + half + i];
        const r = o.factor * Math.hypot(re, im), phase = Math.atan2(im, re) + angle;
        out[row * d + i] = r * Math.cos(phase);
        out[row * d + half + i] = r * Math.sin(phase);
      }
    }
    return { x: out };
  };
}

const frequencies = (half: number): number[] =>
  Array.from({ length: half }, (_, i) => Math.fround(10000 ** (-i / half)));

function ropeCase(name: string, heads: number, d: number, half: number, pos: number[], o: RopeOpts): Case {
  return {
    name,
    tensors: { x: inout([pos.length, heads, d]), pos: ints(...pos), freqs: input([half], frequencies(half), "f32") },
    run: (be, { x, pos, freqs }) => be.rope(x, pos, freqs, o),
    formula: rotate(heads, d, o),
    // pos · freq is rounded to f32 before sin and cos: 6e-8 · 1000 radians at the positions used here.
    slack: 20,
  };
}

testOp("rope", [
  ropeCase("one token, one head", 1, 2, 1, [1], { sign: 1, factor: 1 }),
  ropeCase("restarting positions (packed rows)", 3, 16, 8, [0, 1, 2, 0, 1, 5, 6], { sign: 1, factor: 1 }),
  ropeCase("backward", 4, 64, 32, [7, 3, 1000], { sign: -1, factor: 1 }),
  ropeCase("part of each head, odd sizes", 5, 11, 3, [2, 9, 4], { sign: 1, factor: 1 }),
  ropeCase("with an attention factor", 2, 8, 4, [300, 12], { sign: 1, factor: 1.19 }),
  ropeCase("far positions", 9, 64, 32, [511, 1023], { sign: 1, factor: 1 }),
  {
    name: "backward undoes forward",
    tensors: { x: inout([4, 2, 6]), pos: ints(5, 900, 17, 3), freqs: input([3], frequencies(3), "f32") },
    run: (be, { x, pos, freqs }) => {
      be.rope(x, pos, freqs, { sign: 1, factor: 1 });
      be.rope(x, pos, freqs, { sign: -1, factor: 1 });
    },
    formula: ({ x }) => ({ x }),
  },
]);
