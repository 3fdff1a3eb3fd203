/**
 * A gated feed-forward's activation and what LoRA reads of its results, issued together as the model issues them: a backend may
 * hold the activation back and give all of it in one pass. And gradients over a norm that is made again. Rank 16; sizes lie off
 * every tile.
 */
import type { Act, Backend } from "../../src/core/backend.ts";
import { plus, product } from "./formulas.ts";
import { type Case, inout, input, output, scratch, type Spec, type Tensors, testOp, type Values } from "./harness.ts";

const R = 16;

/** act(x) and its slope. */
function activation(x: number, act: Act): [number, number] {
  if (act === "silu") {
    const s = 1 / (1 + Math.exp(-x));
    return [x * s, s * (1 + x * (1 - s))];
  }
  const c = Math.sqrt(2 / Math.PI), t = Math.tanh(c * (x + 0.044715 * x ** 3));
  return [0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)];
}

/** h = act(gate)·up, then h·Aᵀ. */
function forward(N: number, F: number, act: Act): Case {
  return {
    name: `${act}: h [${N},${F}] and h·Aᵀ`,
    tensors: {
      ...{ gate: input([N, F], 2), up: input([N, F]), a: input([R, F], 0.05, "f32") },
      ...{ h: output([N, F]), ha: output([N, R]) },
    },
    run: (be, { h, gate, up, a, ha }) => {
      be.glu(h, gate, up, act);
      be.matmul(ha, h, a, null, { transB: true });
    },
    formula: ({ gate, up, a }) => {
      const h = gate.map((g, i) => activation(g, act)[0] * up[i]);
      return { h, ha: product(N, R, F, h, a, { tb: true }) };
    },
  };
}

/** What the backward asks: gradients in place, dy·B and dB of gate and up, dA of the linear that read h. */
function backward(N: number, F: number, act: Act, forgets: boolean): Case {
  const wide: Record<string, Spec> = {
    ...{ gate: inout([N, F], 2), up: inout([N, F]) },
    // as the model does it h takes dh's place; once forgotten it is nobody's
    ...forgets ? { dh: input([N, F]), h: scratch([N, F]) } : { dh: inout([N, F]) },
  };
  const run = (be: Backend, t: Tensors) => {
    const h = t.h ?? t.dh;
    be.gluBwd(t.gate, t.up, h, t.dh, t.gate, t.up, act);
    be.matmul(t.dA, t.side, h, null, { transA: true, beta: 1 });
    if (forgets) be.forget?.(h);
    for (const i of ["up", "gate"]) {
      be.matmul(t[`${i}B`], t[i], t[`b_${i}`], null, { alpha: 0.5 });
      be.matmul(t[`${i}_dB`], t[i], t[`xa_${i}`], null, { transA: true, alpha: 0.5, beta: 1 });
    }
  };
  const small: Record<string, Spec> = { side: input([N, R]), dA: inout([R, F], 1, "f32") };
  for (const i of ["up", "gate"]) {
    small[`b_${i}`] = input([F, R], 0.05, "f32"), small[`xa_${i}`] = input([N, R]);
    small[`${i}B`] = output([N, R]), small[`${i}_dB`] = inout([F, R], 1, "f32");
  }
  return {
    name: `${act}: gradients over [${N},${F}]${forgets ? ", h forgotten" : ""}`,
    tensors: { ...wide, ...small },
    run,
    formula: (v: Values) => {
      const parts = v.gate.map((g) => activation(g, act)[0]), slopes = v.gate.map((g) => activation(g, act)[1]);
      const up = v.dh.map((d, i) => d * parts[i]), gate = v.dh.map((d, i) => d * slopes[i] * v.up[i]);
      const h = v.up.map((u, i) => u * parts[i]), out: Record<string, Float64Array> = { gate, up };
      if (!forgets) out.dh = h;
      out.dA = plus(v.dA, product(R, F, N, v.side, h, { ta: true }));
      for (const [i, d] of [["up", up], ["gate", gate]] as const) {
        out[`${i}B`] = product(N, R, F, d, v[`b_${i}`]).map((x) => x / 2);
        out[`${i}_dB`] = plus(v[`${i}_dB`], product(F, R, N, d, v[`xa_${i}`], { ta: true }), 0.5);
      }
      return out;
    },
  };
}

/** dA of linears over a norm that is made again, dy·B of each beside it. */
function overNorm(N: number, D: number, widths: number[], plusOne: boolean): Case {
  const o = { kind: "rms", eps: 1e-5, plusOne } as const;
  const tensors: Record<string, Spec> = {
    ...{
      x: input([N, D], 3),
      w: input([D], 0.5),
      y: output([N, D]),
      stat: output([N, 2], "f32"),
      again: scratch([N, D]),
    },
  };
  widths.forEach((W, i) => {
    tensors[`dy${i}`] = input([N, W]), tensors[`b${i}`] = input([W, R], 0.05, "f32");
    tensors[`dyb${i}`] = output([N, R]), tensors[`da${i}`] = inout([R, D], 1, "f32");
  });
  return {
    name: `norm${plusOne ? " by 1 + w" : ""} [${N},${D}] again under dA of widths ${widths.join(", ")}`,
    tensors,
    run: (be, t) => {
      be.norm(t.y, t.stat, t.x, t.w, null, o);
      if (be.renorm) be.renorm(t.again, t.x, t.stat, t.w, null, o);
      else be.copy(t.again, t.y);
      widths.forEach((_, i) => {
        be.matmul(t[`dyb${i}`], t[`dy${i}`], t[`b${i}`], null, { alpha: 2 });
        be.matmul(t[`da${i}`], t[`dyb${i}`], t.again, null, { transA: true, beta: 1 });
      });
      be.forget?.(t.again);
    },
    formula: (v) => {
      const stat = new Float64Array(2 * N),
        y = new Float64Array(N * D),
        out: Record<string, Float64Array> = { y, stat };
      for (let n = 0; n < N; n++) {
        const row = v.x.subarray(n * D, (n + 1) * D),
          rstd = 1 / Math.sqrt(row.reduce((s, x) => s + x * x, 0) / D + o.eps);
        stat[2 * n + 1] = rstd;
        row.forEach((x, d) => y[n * D + d] = x * rstd * (v.w[d] + (plusOne ? 1 : 0)));
      }
      widths.forEach((W, i) => {
        const dyb = out[`dyb${i}`] = product(N, R, W, v[`dy${i}`], v[`b${i}`]).map((x) => 2 * x);
        out[`da${i}`] = plus(v[`da${i}`], product(R, D, N, dyb, y, { ta: true }));
      });
      return out;
    },
  };
}

const ACTS: Act[] = ["silu", "gelu_tanh"];
testOp("glu", ACTS.flatMap((act) => [forward(201, 1160, act), forward(72, 136, act), forward(1100, 520, act)]));
testOp(
  "gluBwd",
  ACTS.flatMap((act) => [
    ...[true, false].flatMap((forgets) => [
      backward(201, 1160, act, forgets),
      backward(72, 136, act, forgets),
      backward(1100, 520, act, forgets),
    ]),
    backward(2100, 72, act, true),
  ]),
);
testOp("norm", [
  overNorm(201, 136, [200], false),
  overNorm(137, 1160, [264, 136, 136], true),
  overNorm(1100, 392, [520, 520], false),
]);
