/** norm and normBwd: RMS and layer norm, gemma's 1 + w, with and without bias and weight gradients. */
import type { NormOpts } from "../../src/core/backend.ts";
import { type Case, inout, input, output, testOp, type Values } from "./harness.ts";

const SHAPES: [number, number][] = [[1, 1], [1, 8], [3, 7], [5, 64], [2, 131], [13, 576]];
const KINDS: NormOpts[] = [
  { kind: "rms", eps: 1e-5, plusOne: false },
  { kind: "rms", eps: 1e-6, plusOne: true },
  { kind: "layer", eps: 1e-5, plusOne: false },
];

/** Row by row: normalised values and 1/std, by two passes. */
function normalise(x: Float64Array, N: number, D: number, o: NormOpts) {
  const hat = new Float64Array(N * D), stat: number[] = [];
  for (let n = 0; n < N; n++) {
    const row = Array.from(x.slice(n * D, n * D + D));
    const mean = o.kind === "layer" ? row.reduce((a, b) => a + b) / D : 0;
    const rstd = (row.reduce((a, b) => a + (b - mean) * (b - mean), 0) / D + o.eps) ** -0.5;
    row.forEach((v, j) => hat[n * D + j] = (v - mean) * rstd);
    stat.push(mean, rstd);
  }
  return { hat, stat };
}

function forward(N: number, D: number, o: NormOpts) {
  return ({ x, w, b }: Values): Record<string, ArrayLike<number>> => {
    const { hat, stat } = normalise(x, N, D, o), weight = (j: number): number => w[j] + (o.plusOne ? 1 : 0);
    return { out: hat.map((v, i) => v * weight(i % D) + (b ? b[i % D] : 0)), stat };
  };
}

/** Through the Jacobian of a row: d x̂_j / d x_i = rstd · (δ_ij - [1/D] - x̂_i x̂_j / D), the bracket for layer norm. */
function backward(N: number, D: number, o: NormOpts) {
  return ({ dx, dw, db, dOut, x, w }: Values): Record<string, ArrayLike<number>> => {
    const { hat, stat } = normalise(x, N, D, o), gx = dx.slice(), gw = dw?.slice(), gb = db?.slice();
    for (let n = 0; n < N; n++) {
      const h = hat.subarray(n * D, n * D + D), g = dOut.subarray(n * D, n * D + D);
      for (let j = 0; j < D; j++) {
        for (let i = 0; i < D; i++) {
          const jacobian = stat[2 * n + 1] * ((i === j ? 1 : 0) - (o.kind === "layer" ? 1 / D : 0) - h[i] * h[j] / D);
          gx[n * D + i] += g[j] * (w[j] + (o.plusOne ? 1 : 0)) * jacobian;
        }
        if (gw) gw[j] += g[j] * h[j];
        if (gb) gb[j] += g[j];
      }
    }
    return { dx: gx, ...(gw ? { dw: gw } : {}), ...(gb ? { db: gb } : {}) };
  };
}

const label = (o: NormOpts, N: number, D: number): string => `${o.kind}${o.plusOne ? " of 1+w" : ""} [${N},${D}]`;
const fewer = SHAPES.filter(([N, D]) => N * D > 1);

testOp("norm", [
  ...KINDS.flatMap((o) =>
    SHAPES.map(([N, D]): Case => ({
      name: label(o, N, D),
      tensors: { x: input([N, D], 3), w: input([D]), out: output([N, D]), stat: output([N, 2], "f32") },
      run: (be, { out, stat, x, w }) => be.norm(out, stat, x, w, null, o),
      formula: forward(N, D, o),
    }))
  ),
  {
    name: "layer with a bias, over three axes (heads)",
    tensors: {
      x: input([3, 5, 16]),
      w: input([16]),
      b: input([16]),
      out: output([3, 5, 16]),
      stat: output([15, 2], "f32"),
    },
    run: (be, { out, stat, x, w, b }) => be.norm(out, stat, x, w, b, KINDS[2]),
    formula: forward(15, 16, KINDS[2]),
  },
  {
    name: "rms with a weight that is f32",
    tensors: { x: input([3, 40]), w: input([40], 1, "f32"), out: output([3, 40]), stat: output([3, 2], "f32") },
    run: (be, { out, stat, x, w }) => be.norm(out, stat, x, w, null, KINDS[0]),
    formula: forward(3, 40, KINDS[0]),
  },
  {
    name: "rms of very small and very large rows",
    tensors: {
      x: input([2, 4], [1e-4, -2e-4, 0, 3e-4, 1e4, 2e4, -3e4, 0]),
      w: input([4]),
      out: output([2, 4]),
      stat: output([2, 2], "f32"),
    },
    run: (be, { out, stat, x, w }) => be.norm(out, stat, x, w, null, { kind: "rms", eps: 1e-6, plusOne: false }),
    formula: forward(2, 4, { kind: "rms", eps: 1e-6, plusOne: false }),
  },
]);

/** The statistics are an input of the backward; they are made by the forward in the same run. */
function backwardCase(name: string, N: number, D: number, o: NormOpts, weights: boolean, bias: boolean): Case {
  return {
    name,
    tensors: {
      x: input([N, D], 2),
      w: input([D]),
      dOut: input([N, D]),
      scratch: output([N, D]),
      stat: output([N, 2], "f32"),
      dx: inout([N, D]),
      ...(weights ? { dw: inout([D], 1, "f32") } : {}),
      ...(bias ? { db: inout([D], 1, "f32") } : {}),
    },
    run: (be, { scratch, stat, x, w, dOut, dx, dw, db }) => {
      be.norm(scratch, stat, x, w, null, o);
      be.normBwd(dx, dw ?? null, db ?? null, dOut, x, w, stat, o);
    },
    formula: backward(N, D, o),
  };
}

testOp("normBwd", [
  ...KINDS.flatMap((o) =>
    fewer.map(([N, D]) => backwardCase(`${label(o, N, D)}, frozen weight`, N, D, o, false, false))
  ),
  ...KINDS.flatMap((o) => fewer.map(([N, D]) => backwardCase(`${label(o, N, D)}, with dw`, N, D, o, true, false))),
  backwardCase("layer [9,33] with dw and db", 9, 33, KINDS[2], true, true),
]);
