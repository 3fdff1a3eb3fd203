/**
 * The thin products of a LoRA step, issued together as the model issues them: a backend may hold them back and read each wide
 * matrix once for all of them. The rank is 16 and the sizes lie off every tile.
 */
import type { Backend } from "../../src/core/backend.ts";
import { plus, product } from "./formulas.ts";
import { type Case, inout, input, output, type Spec, type Tensors, testOp, type Values } from "./harness.ts";

const R = 16;

/** x·A_iᵀ of several adapters over one x [N,K]. */
function forward(N: number, K: number, adapters: number): Case {
  const each = Array.from({ length: adapters }, (_, i) => i);
  const tensors: Record<string, Spec> = { x: input([N, K]) };
  for (const i of each) tensors[`a${i}`] = input([R, K], 0.05, "f32"), tensors[`xa${i}`] = output([N, R]);
  return {
    name: `x [${N},${K}] times ${adapters} adapters`,
    tensors,
    run: (be, t) => each.forEach((i) => be.matmul(t[`xa${i}`], t.x, t[`a${i}`], null, { transB: true })),
    formula: (v) =>
      Object.fromEntries(
        each.map((i) => [`xa${i}`, product(N, R, K, v.x, v[`a${i}`], { tb: true })]),
      ),
  };
}

/** dy·B and dB += s·dyᵀ·xa of several linears, of the given widths. */
function backward(N: number, widths: number[]): Case {
  const tensors: Record<string, Spec> = {};
  widths.forEach((W, i) => {
    tensors[`dy${i}`] = input([N, W]), tensors[`b${i}`] = input([W, R], 0.05, "f32");
    tensors[`xa${i}`] = input([N, R]), tensors[`dyb${i}`] = output([N, R]), tensors[`db${i}`] = inout([W, R], 1, "f32");
  });
  const run = (be: Backend, t: Tensors) => {
    widths.forEach((_, i) => be.matmul(t[`dyb${i}`], t[`dy${i}`], t[`b${i}`], null, { alpha: 0.5 }));
    widths.forEach((_, i) =>
      be.matmul(t[`db${i}`], t[`dy${i}`], t[`xa${i}`], null, { transA: true, alpha: 0.5, beta: 1 })
    );
  };
  const formula = (v: Values) => {
    const out: Record<string, Float64Array> = {};
    widths.forEach((W, i) => {
      const dy = v[`dy${i}`];
      out[`dyb${i}`] = product(N, R, W, dy, v[`b${i}`]).map((x) => x / 2);
      out[`db${i}`] = plus(v[`db${i}`], product(W, R, N, dy, v[`xa${i}`], { ta: true }), 0.5);
    });
    return out;
  };
  return { name: `dy·B and dB, ${N} rows of ${widths.join(", ")}`, tensors, run, formula };
}

/** A linear whose result has few tiles and a long inner axis, which a backend may cut: x·Wᵀ + (x·Aᵀ)·Bᵀ + addend. */
function whole(N: number, K: number, W: number): Case {
  return {
    name: `a linear of ${K} to ${W} features over ${N} rows`,
    tensors: {
      ...{ x: input([N, K], 0.1), w: input([W, K], 0.1), a: input([R, K], 0.05, "f32"), b: input([W, R], 0.05, "f32") },
      ...{ more: input([N, W]), xa: output([N, R]), y: output([N, W]) },
    },
    run: (be, t) => {
      be.matmul(t.y, t.x, t.w, null, { transB: true });
      be.matmul(t.xa, t.x, t.a, null, { transB: true });
      be.matmul(t.y, t.xa, t.b, null, { transB: true, beta: 1 });
      be.add(t.y, t.y, t.more);
    },
    formula: (v) => {
      const xa = product(N, R, K, v.x, v.a, { tb: true }), xab = product(N, W, R, xa, v.b, { tb: true });
      return { xa, y: plus(plus(product(N, W, K, v.x, v.w, { tb: true }), xab), v.more) };
    },
  };
}

testOp("matmul", [
  forward(201, 1160, 3),
  forward(137, 200, 2),
  forward(72, 8192, 1),
  forward(1100, 136, 1),
  backward(201, [1160, 264, 136]),
  backward(130, [2056, 2056]),
  backward(72, [8192]),
  backward(1100, [392]),
  whole(70, 4104, 72),
  whole(300, 4160, 136),
]);
