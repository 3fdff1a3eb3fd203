/** Packed causal attention and its backward: lengths, groups of heads, windows, soft caps, padding. */
import type { AttnOpts } from "../../src/core/backend.ts";
import { Random } from "../../src/core/philox.ts";
import { type Case, input, ints, output, testOp, type Values } from "./harness.ts";
import { turnedBackward } from "./turned.ts";

interface Shape {
  N: number;
  H: number;
  K: number;
  d: number;
  cu: number[];
}

/** Whole matrices: mask, softmax, product. Rows outside every sequence are zero. */
function dense({ N, H, K, d, cu }: Shape, o: AttnOpts) {
  return ({ q, k, v }: Values): Record<string, Float64Array> => {
    const out = new Float64Array(N * H * d), lse = new Float64Array(H * N);
    const sequence = (n: number): number =>
      cu.findIndex((start, s) => s + 1 < cu.length && start <= n && n < cu[s + 1]);
    for (let h = 0; h < H; h++) {
      for (let n = 0; n < N; n++) {
        if (sequence(n) < 0) continue;
        const sees = (m: number): boolean => {
          return m <= n && sequence(m) === sequence(n) && (o.window === 0 || n - m < o.window);
        };
        const keys = Array.from({ length: N }, (_, m) => m).filter(sees), g = Math.floor(h * K / H);
        const scores = keys.map((m) => {
          let s = 0;
          for (let e = 0; e < d; e++) s += q[(n * H + h) * d + e] * k[(m * K + g) * d + e];
          return o.softcap ? o.softcap * Math.tanh(o.scale * s / o.softcap) : o.scale * s;
        });
        const total = scores.reduce((sum, s) => sum + Math.exp(s), 0);
        lse[h * N + n] = Math.log(total);
        keys.forEach((m, i) => {
          for (let e = 0; e < d; e++) out[(n * H + h) * d + e] += Math.exp(scores[i]) / total * v[(m * K + g) * d + e];
        });
      }
    }
    return { out, lse };
  };
}

const SHAPES: Shape[] = [
  { N: 1, H: 1, K: 1, d: 1, cu: [0, 1] },
  { N: 7, H: 2, K: 1, d: 8, cu: [0, 7] },
  { N: 18, H: 3, K: 3, d: 5, cu: [0, 5, 6, 18] },
  { N: 37, H: 9, K: 3, d: 64, cu: [0, 37] },
  { N: 103, H: 4, K: 2, d: 16, cu: [0, 33, 103] },
  { N: 70, H: 2, K: 2, d: 80, cu: [0, 65, 70] },
  { N: 11, H: 2, K: 1, d: 4, cu: [0, 5, 9, 9, 9] }, // two padding rows, two empty sequences
];
const OPTIONS: AttnOpts[] = [
  { scale: 0.3, window: 0, softcap: 0 },
  { scale: 0.125, window: 5, softcap: 0 },
  { scale: 0.5, window: 0, softcap: 2 },
  { scale: 0.25, window: 1, softcap: 50 },
];

const longest = (cu: number[]): number => Math.max(...cu.slice(1).map((c, i) => c - cu[i]));
const label = (s: Shape, o: AttnOpts): string => {
  return `[${s.N},${s.H}/${s.K},${s.d}] in ${s.cu.length - 1}${o.window ? ` window ${o.window}` : ""}${
    o.softcap ? ` cap ${o.softcap}` : ""
  }`;
};
/** Shapes nobody chose, from a fixed seed. */
const random = new Random(31);
const drawn = Array.from({ length: 8 }, () => {
  const K = 1 + random.below(3), H = K * (1 + random.below(3)), d = 1 + random.below(70), cu = [0];
  for (let s = 1 + random.below(4); s > 0; s--) cu.push(cu[cu.length - 1] + random.below(45));
  const o = { scale: 1 / Math.sqrt(d), window: random.below(2) * random.below(30), softcap: random.below(2) * 5 };
  return { s: { N: Math.max(1, cu[cu.length - 1]) + random.below(3), H, K, d, cu }, o };
});
/** The second option on every shape would say little: all options on two shapes, one on the others. */
const chosen = SHAPES.flatMap((s, i) =>
  (i === 2 || i === 4 ? OPTIONS : [OPTIONS[i % OPTIONS.length], OPTIONS[0]]).map((o) => ({ s, o }))
);
const pairs = [...chosen, ...drawn];

testOp("attention", [
  ...pairs.map(({ s, o }): Case => ({
    name: label(s, o),
    tensors: {
      q: input([s.N, s.H, s.d]),
      k: input([s.N, s.K, s.d]),
      v: input([s.N, s.K, s.d]),
      cu: ints(...s.cu),
      out: output([s.N, s.H, s.d]),
      lse: output([s.H, s.N], "f32"),
    },
    run: (be, { out, lse, q, k, v, cu }) => be.attention(out, lse, q, k, v, { cu, maxLen: longest(s.cu) }, o),
    formula: dense(s, o),
  })),
  {
    name: "with scores far apart (no overflow)",
    tensors: {
      q: input([9, 1, 4], 30),
      k: input([9, 1, 4], 30),
      v: input([9, 1, 4]),
      cu: ints(0, 9),
      out: output([9, 1, 4]),
      lse: output([1, 9], "f32"),
    },
    run: (be, { out, lse, q, k, v, cu }) =>
      be.attention(out, lse, q, k, v, { cu, maxLen: 16 }, { scale: 0.1, window: 0, softcap: 0 }),
    formula: dense({ N: 9, H: 1, K: 1, d: 4, cu: [0, 9] }, { scale: 0.1, window: 0, softcap: 0 }),
  },
]);

// The reference's backward is held to its forward by finite differences in tests/reference/gradients_test.ts.
testOp(
  "attentionBwd",
  pairs.map(({ s, o }): Case => ({
    name: label(s, o),
    tensors: {
      q: input([s.N, s.H, s.d]),
      k: input([s.N, s.K, s.d]),
      v: input([s.N, s.K, s.d]),
      dOut: input([s.N, s.H, s.d]),
      cu: ints(...s.cu),
      out: output([s.N, s.H, s.d]),
      lse: output([s.H, s.N], "f32"),
      dq: output([s.N, s.H, s.d]),
      dk: output([s.N, s.K, s.d]),
      dv: output([s.N, s.K, s.d]),
    },
    run: (be, { q, k, v, dOut, cu, out, lse, dq, dk, dv }) => {
      const seqs = { cu, maxLen: longest(s.cu) };
      be.attention(out, lse, q, k, v, seqs, o);
      be.attentionBwd(dq, dk, dv, dOut, q, k, v, out, lse, seqs, o);
    },
    // dP - Σ P·dP cancels: its terms are several times its value.
    slack: 3,
  })),
);

testOp("attentionBwd", [
  turnedBackward({ N: 37, H: 4, K: 2, d: 64, cu: [0, 20, 37] }),
  turnedBackward({ N: 21, H: 3, K: 1, d: 128, cu: [0, 21], factor: 1.19 }),
  turnedBackward({ N: 19, H: 2, K: 2, d: 16, cu: [0, 19], half: 4, turns: ["dq", "dk", "dk"] }),
]);
