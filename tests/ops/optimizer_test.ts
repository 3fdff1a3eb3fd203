/** clipFactor and adamw, as torch defines them. */
import { type Case, inout, input, testOp } from "./harness.ts";

const HYPER = [0, 0, 0, 0, 0, 0, 0, 1].map(() => 5);

function clipCase(sumSq: number, maxNorm: number): Case {
  return {
    name: `norm ${Math.sqrt(sumSq)}, at most ${maxNorm}`,
    tensors: { hyper: inout([8], HYPER, "f32"), sumSq: input([1], [sumSq], "f32") },
    run: (be, { hyper, sumSq }) => be.clipFactor(hyper, sumSq, maxNorm),
    formula: () => {
      const factor = maxNorm / (Math.sqrt(sumSq) + 1e-6);
      return { hyper: [...HYPER.slice(0, 7), maxNorm === 0 || factor > 1 ? 1 : factor] };
    },
  };
}
testOp("clipFactor", [clipCase(16, 1), clipCase(0.25, 1), clipCase(0, 1), clipCase(1e6, 0), clipCase(2.25, 0.5)]);

/** torch.optim.AdamW's order: decay, moments, corrected step. */
function adamwCase(name: string, count: number, decay: number, clip: number, t: number): Case {
  const [lr, b1, b2, eps] = [1e-2, 0.9, 0.999, 1e-8].map(Math.fround);
  const hyper = [lr, b1, b2, eps, decay, 1 - b1 ** t, 1 - b2 ** t, clip].map(Math.fround);
  return {
    name: `${name}, ${count} elements, step ${t}`,
    tensors: {
      p: inout([count], 1, "f32"),
      g: input([count], 1, "f32"),
      m: inout([count], 0.1, "f32"),
      v: inout([count], Array.from({ length: count }, (_, i) => (i % 5) * 0.01), "f32"),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, m, v, hyper }) => be.adamw(p, g, m, v, hyper),
    formula: ({ p, g, m, v }) => {
      const [, , , , wd, c1, c2, factor] = hyper;
      const m2 = m.map((x, i) => x + (1 - b1) * (factor * g[i] - x));
      const v2 = v.map((x, i) => b2 * x + (1 - b2) * (factor * g[i]) ** 2);
      return {
        m: m2,
        v: v2,
        p: p.map((x, i) => x * (1 - lr * wd) - lr / c1 * m2[i] / (Math.sqrt(v2[i]) / Math.sqrt(c2) + eps)),
      };
    },
    // 1 - b2 in f32 keeps only 13 bits of 0.001's neighbourhood: 6e-8 / 1e-3 of the new square.
    slack: 20,
  };
}
testOp("adamw", [
  adamwCase("plain", 1, 0, 1, 1),
  adamwCase("with decay", 7, 0.1, 1, 3),
  adamwCase("clipped", 1031, 0.01, 0.3, 10),
]);
