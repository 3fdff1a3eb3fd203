/** crossEntropy: loss and gradient by definition, with masked rows, soft cap, smoothing and z-loss. */
import type { LossOpts } from "../../src/core/backend.ts";
import { type Case, inout, input, ints, output, testOp, type Values } from "./harness.ts";

const OFF: LossOpts = { softcap: 0, smoothing: 0, zLoss: 0 };

/** Probabilities, then the loss as a mean over a smoothed target distribution, then its derivative term by term. */
function definition(N: number, V: number, o: LossOpts) {
  return ({ logits, target, weight }: Values): Record<string, Float64Array> => {
    const loss = new Float64Array(N), grad = new Float64Array(N * V);
    for (let n = 0; n < N; n++) {
      if (weight[n] === 0) continue;
      const z = Array.from(logits.slice(n * V, n * V + V), (x) => o.softcap ? o.softcap * Math.tanh(x / o.softcap) : x);
      const total = z.reduce((s, x) => s + Math.exp(x), 0), lse = Math.log(total);
      for (let j = 0; j < V; j++) {
        const p = Math.exp(z[j]) / total, wanted = o.smoothing / V + (j === target[n] ? 1 - o.smoothing : 0);
        loss[n] -= wanted * Math.log(p);
        const slope = o.softcap ? 1 / Math.cosh(logits[n * V + j] / o.softcap) ** 2 : 1;
        grad[n * V + j] = weight[n] * (p - wanted + 2 * o.zLoss * lse * p) * slope;
      }
      loss[n] += o.zLoss * lse * lse;
    }
    return { loss, logits: grad };
  };
}

function lossCase(name: string, N: number, V: number, o: LossOpts, size = 3): Case {
  const targets = Array.from({ length: N }, (_, n) => (n * 7 + 3) % V);
  return {
    name: `${name} [${N},${V}]`,
    tensors: {
      logits: inout([N, V], size),
      target: ints(...targets),
      weight: input([N], Array.from({ length: N }, (_, n) => n % 4 === 2 ? 0 : 0.25 * (n + 1)), "f32"),
      loss: output([N], "f32"),
    },
    run: (be, { loss, logits, target, weight }) => be.crossEntropy(loss, logits, target, weight, o),
    formula: definition(N, V, o),
  };
}

testOp("crossEntropy", [
  ...[[1, 1], [1, 2], [5, 7], [3, 131], [9, 1000], [2, 4099]].map(([N, V]) => lossCase("plain", N, V, OFF)),
  lossCase("soft cap", 5, 67, { ...OFF, softcap: 2 }),
  lossCase("label smoothing", 5, 67, { ...OFF, smoothing: 0.1 }),
  lossCase("z-loss", 5, 67, { ...OFF, zLoss: 1e-2 }),
  lossCase("all three", 6, 259, { softcap: 30, smoothing: 0.05, zLoss: 1e-3 }),
  lossCase("logits far apart", 4, 33, OFF, 30),
  {
    name: "masked rows, whose targets are no tokens",
    tensors: {
      logits: inout([3, 5]),
      target: ints(-100, 2, 999),
      weight: input([3], [0, 1, 0], "f32"),
      loss: output([3], "f32"),
    },
    run: (be, { loss, logits, target, weight }) => be.crossEntropy(loss, logits, target, weight, OFF),
    formula: definition(3, 5, OFF),
  },
]);
