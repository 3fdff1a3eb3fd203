/** The reference's backward operations against finite differences of its forward operations, in f64. */
import { describe, expect, test } from "vitest";
import type { Act, AttnOpts, LossOpts, NormOpts } from "../../src/core/backend.ts";
import { Random } from "../../src/core/philox.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { ReferenceBackend, tensorOf, valuesOf } from "./mod.ts";

const STEP = 1e-5;
const be = new ReferenceBackend();
const random = new Random(11);
const normal = (n: number): Float64Array => Float64Array.from({ length: n }, () => random.normal());
const f = (...shape: number[]): Tensor => tensorOf(be, "f32", normal(shape.reduce((a, b) => a * b, 1)), ...shape);
const zeros = (...shape: number[]): Tensor =>
  tensorOf(be, "f32", new Float64Array(shape.reduce((a, b) => a * b, 1)), ...shape);
const ints = (...v: number[]): Tensor => tensorOf(be, "i32", v, v.length);

/** Σ r · out. */
async function dot(out: Tensor, r: Tensor): Promise<number> {
  const a = await valuesOf(be, out), b = await valuesOf(be, r);
  return a.reduce((s, x, i) => s + x * b[i], 0);
}

/** Compares `grad` with central differences of `loss` in each element of `x`; 1e-8 is what STEP leaves of f64. */
async function compare(name: string, x: Tensor, grad: Tensor, loss: () => Promise<number>): Promise<void> {
  const at = await valuesOf(be, x), got = await valuesOf(be, grad);
  let error = 0, norm = 0;
  for (let i = 0; i < at.length; i++) {
    const moved = at.slice();
    moved[i] = at[i] + STEP;
    be.upload(x, moved);
    const up = await loss();
    moved[i] = at[i] - STEP;
    be.upload(x, moved);
    const want = (up - await loss()) / (2 * STEP);
    error += (got[i] - want) ** 2;
    norm += want * want;
  }
  be.upload(x, at);
  expect(Math.sqrt(error / norm), name).toBeLessThan(1e-8);
}

describe("the reference's gradients equal finite differences", () => {
  test.each<NormOpts>([
    { kind: "rms", eps: 1e-5, plusOne: false },
    { kind: "rms", eps: 1e-2, plusOne: true },
    { kind: "layer", eps: 1e-5, plusOne: false },
  ])("norm %o", async (o) => {
    const [N, D] = [3, 7], x = f(N, D), w = f(D), b = f(D), r = f(N, D), out = zeros(N, D), stat = zeros(N, 2);
    const loss = () => {
      be.norm(out, stat, x, w, b, o);
      return dot(out, r);
    };
    await loss();
    const dx = zeros(N, D), dw = zeros(D), db = zeros(D);
    be.normBwd(dx, dw, db, r, x, w, stat, o);
    await compare("dx", x, dx, loss);
    await compare("dw", w, dw, loss);
    await compare("db", b, db, loss);
  });

  test("normBwd adds to what is there", async () => {
    const x = f(2, 3), w = f(3), r = f(2, 3), stat = zeros(2, 2), once = zeros(2, 3), twice = zeros(2, 3);
    const o: NormOpts = { kind: "rms", eps: 1e-5, plusOne: false };
    be.norm(zeros(2, 3), stat, x, w, null, o);
    be.normBwd(once, null, null, r, x, w, stat, o);
    be.normBwd(twice, null, null, r, x, w, stat, o);
    be.normBwd(twice, null, null, r, x, w, stat, o);
    expect([...await valuesOf(be, twice)]).toEqual([...await valuesOf(be, once)].map((v) => 2 * v));
  });

  test.each<[Act, boolean]>([["silu", true], ["gelu", true], ["gelu_tanh", true], ["silu", false], ["gelu", false]])(
    "glu %s, gated %s",
    async (act, gated) => {
      const shape = [3, 11] as const, gate = f(...shape), up = gated ? f(...shape) : null, r = f(...shape);
      const h = zeros(...shape), again = zeros(...shape), dGate = zeros(...shape), dUp = gated ? zeros(...shape) : null;
      const loss = () => {
        be.glu(h, gate, up, act);
        return dot(h, r);
      };
      await loss();
      be.gluBwd(dGate, dUp, again, r, gate, up, act);
      expect([...await valuesOf(be, again)]).toEqual([...await valuesOf(be, h)]);
      await compare("gate", gate, dGate, loss);
      if (up && dUp) await compare("up", up, dUp, loss);
    },
  );

  test.each<[number[], AttnOpts]>([
    [[0, 6], { scale: 0.5, window: 0, softcap: 0 }],
    [[0, 2, 3, 7], { scale: 0.5, window: 0, softcap: 0 }],
    [[0, 6], { scale: 0.5, window: 2, softcap: 0 }],
    [[0, 4, 7], { scale: 0.7, window: 3, softcap: 1.5 }],
  ])("attention over %j with %o", async (bounds, o) => {
    const N = bounds[bounds.length - 1], [H, K, d] = [4, 2, 3];
    const q = f(N, H, d), k = f(N, K, d), v = f(N, K, d), r = f(N, H, d), out = zeros(N, H, d), lse = zeros(H, N);
    const seqs = { cu: ints(...bounds), maxLen: N };
    const loss = () => {
      be.attention(out, lse, q, k, v, seqs, o);
      return dot(out, r);
    };
    await loss();
    const dq = f(N, H, d), dk = f(N, K, d), dv = f(N, K, d);
    be.attentionBwd(dq, dk, dv, r, q, k, v, out, lse, seqs, o);
    await compare("dq", q, dq, loss);
    await compare("dk", k, dk, loss);
    await compare("dv", v, dv, loss);
  });

  test.each<LossOpts>([
    { softcap: 0, smoothing: 0, zLoss: 0 },
    { softcap: 2, smoothing: 0.1, zLoss: 0 },
    { softcap: 0, smoothing: 0, zLoss: 0.05 },
    { softcap: 3, smoothing: 0.2, zLoss: 0.01 },
  ])("crossEntropy with %o", async (o) => {
    const [N, V] = [4, 9], logits = f(N, V), target = ints(3, 0, 8, 1), loss = zeros(N);
    const weight = tensorOf(be, "f32", [0.5, 2, 0, 1], N), scratch = zeros(N, V);
    const total = () => {
      be.copy(scratch, logits);
      be.crossEntropy(loss, scratch, target, weight, o);
      return dot(loss, weight);
    };
    await total();
    const grad = zeros(N, V);
    be.copy(grad, scratch);
    await compare("logits", logits, grad, total);
  });

  test("embed, with an id that comes twice", async () => {
    const table = f(5, 3), ids = ints(4, 1, 4), r = f(3, 3), out = zeros(3, 3), dTable = zeros(5, 3);
    const loss = () => {
      be.embed(out, table, ids, 1.5);
      return dot(out, r);
    };
    be.embedBwd(dTable, r, ids, 1.5);
    await compare("table", table, dTable, loss);
  });

  test("rope with sign -1 is the gradient of rope with sign 1", async () => {
    const x = f(3, 2, 8), r = f(3, 2, 8), y = zeros(3, 2, 8), dx = zeros(3, 2, 8), pos = ints(2, 7, 1);
    const freqs = tensorOf(be, "f32", [1, 0.3, 0.01], 3);
    const loss = () => {
      be.copy(y, x);
      be.rope(y, pos, freqs, { sign: 1, factor: 1.3 });
      return dot(y, r);
    };
    be.copy(dx, r);
    be.rope(dx, pos, freqs, { sign: -1, factor: 1.3 });
    await compare("x", x, dx, loss);
  });

  test("a linear layer's gradients are the two transposed products", async () => {
    const x = f(4, 3), w = f(5, 3), r = f(4, 5), y = zeros(4, 5), dx = zeros(4, 3), dw = zeros(5, 3);
    const loss = () => {
      be.matmul(y, x, w, null, { transB: true, alpha: 0.7 });
      return dot(y, r);
    };
    be.matmul(dx, r, w, null, { alpha: 0.7 });
    be.matmul(dw, r, x, null, { transA: true, alpha: 0.7 });
    await compare("x", x, dx, loss);
    await compare("w", w, dw, loss);
  });

  test("dropout is its own gradient: the mask of a seed and a stream does not change", async () => {
    const x = f(4, 8), r = f(4, 8), y = zeros(4, 8), dx = zeros(4, 8), seed = ints(5, 6);
    const loss = () => {
      be.dropout(y, x, seed, 2, 0.4);
      return dot(y, r);
    };
    be.dropout(dx, r, seed, 2, 0.4);
    await compare("x", x, dx, loss);
  });
});
