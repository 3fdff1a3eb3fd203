/**
 * Every operation on one thread, on three with the tile over structs, and with the other set of kernels: neither threads nor the
 * tile may change a bit, and each must agree with the reference. Shapes are off every tile: tests/ops has the thorough cases.
 */
import { afterAll, describe, expect, test } from "vitest";
import type { AttnOpts, Backend } from "../../src/core/backend.ts";
import type { DType } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import { byteLength, numel, type Tensor } from "../../src/core/tensor.ts";
import { createWasmBackend, runsPanels } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { randomAs, storeAs } from "../ops/values.ts";

const BACKENDS = {
  one: await createWasmBackend({ threads: 1, kernels: "fma" }),
  three: await createWasmBackend({ threads: 3, kernels: runsPanels() ? "panels" : "fma" }),
  mul: await createWasmBackend({ threads: 2, kernels: "mul" }),
};
afterAll(() => Object.values(BACKENDS).forEach((be) => be.close()));

/** Makes tensors of one case on one backend: the same names get the same values everywhere. */
class Maker {
  readonly outputs: Tensor[] = [];
  #seed = 0;
  readonly be: Backend;

  constructor(be: Backend) {
    this.be = be;
  }
  #make(dtype: DType, shape: number[], values: Float64Array | number): Tensor {
    const n = shape.reduce((a, b) => a * b, 1);
    const stored = typeof values === "number" ? randomAs(dtype, n, ++this.#seed, values) : storeAs(dtype, values);
    const exact = this.be.name === "reference" && dtype !== "i32";
    const t = { handle: 0, byteOffset: 0, dtype: exact ? "f32" as const : dtype, shape };
    const placed = { ...t, handle: this.be.alloc(byteLength(t)) };
    this.be.upload(placed, exact ? stored.values : stored.bytes);
    return placed;
  }
  f(...shape: number[]): Tensor {
    return this.#make("f32", shape, 1);
  }
  w(dtype: DType, ...shape: number[]): Tensor {
    return this.#make(dtype, shape, 1);
  }
  ints(...values: number[]): Tensor {
    return this.#make("i32", [values.length], Float64Array.from(values));
  }
  /** Positive numbers. */
  positive(...shape: number[]): Tensor {
    const r = new Random(++this.#seed), n = shape.reduce((a, b) => a * b, 1);
    return this.#make("f32", shape, Float64Array.from({ length: n }, () => Math.fround(0.1 + r.uniform())));
  }
  /** A result, poisoned. */
  out(...shape: number[]): Tensor {
    const t = this.#make("f32", shape, new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(NaN));
    this.outputs.push(t);
    return t;
  }
  /** A tensor that is changed and compared. */
  watch(t: Tensor): Tensor {
    this.outputs.push(t);
    return t;
  }
  /** A tensor that is added to. */
  sum(...shape: number[]): Tensor {
    return this.watch(this.f(...shape));
  }
}

const range = (n: number, f: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => f(i));
const attn = { scale: 0.3, window: 0, softcap: 0 };

/** Attention and its backward over sequences that end at `cu`, with room for padding behind them. */
function attend(m: Maker, be: Backend, shape: [N: number, H: number, K: number, d: number], cu: number[], o: AttnOpts) {
  const [N, H, K, d] = shape,
    s = { cu: m.ints(...cu), maxLen: 1 + Math.max(...cu.slice(1).map((end, i) => end - cu[i])) };
  const q = m.f(N, H, d), k = m.f(N, K, d), v = m.f(N, K, d), out = m.out(N, H, d), lse = m.out(H, N);
  be.attention(out, lse, q, k, v, s, o);
  be.attentionBwd(m.out(N, H, d), m.out(N, K, d), m.out(N, K, d), m.f(N, H, d), q, k, v, out, lse, s, o);
}

const CASES: Record<string, (m: Maker, be: Backend) => void> = {
  embed: (m, be) => be.embed(m.out(37, 64), m.w("q4_1", 50, 64), m.ints(...range(37, (i) => (i * 7) % 50)), 1.5),
  embedBwd: (m, be) => be.embedBwd(m.sum(50, 131), m.f(37, 131), m.ints(...range(37, (i) => (i * i) % 50)), 0.5),
  "rms norm": (m, be) =>
    be.norm(m.out(37, 131), m.out(37, 2), m.f(37, 131), m.f(131), null, { kind: "rms", eps: 1e-5, plusOne: true }),
  "layer norm": (m, be) =>
    be.norm(m.out(37, 130), m.out(37, 2), m.f(37, 130), m.f(130), m.f(130), {
      kind: "layer",
      eps: 1e-5,
      plusOne: false,
    }),
  normBwd: (m, be) => {
    const o = { kind: "layer", eps: 1e-5, plusOne: false } as const, x = m.f(37, 131), w = m.f(131);
    const stat = m.out(37, 2);
    be.norm(m.out(37, 131), stat, x, w, null, o);
    be.normBwd(m.sum(37, 131), m.sum(131), m.sum(131), m.f(37, 131), x, w, stat, o);
  },
  rope: (m, be) =>
    be.rope(m.sum(37, 3, 20), m.ints(...range(37, (i) => i * i * 5)), m.positive(7), { sign: -1, factor: 1.2 }),
  attention: (m, be) => attend(m, be, [83, 6, 2, 20], [0, 1, 70, 70, 81], attn),
  "attention of one sequence, whole on one thread and split over three": (m, be) => {
    for (const window of [0, 75]) attend(m, be, [200, 3, 1, 20], [0, 200], { ...attn, window });
  },
  "attention whose heads fill structs": (m, be) => {
    for (const [d, window, softcap] of [[64, 0, 0], [80, 70, 0], [16, 0, 3], [128, 33, 0]]) {
      attend(m, be, [139, 4, 2, d], [0, 3, 98, 98, 137], { scale: 0.2, window, softcap });
    }
    attend(m, be, [190, 3, 1, 64], [0, 190], { scale: 0.2, window: 0, softcap: 0 });
  },
  "attention whose ds take several rounds": (m, be) => {
    attend(m, be, [1300, 4, 2, 5], [0, 1290], attn); // a query head at a time
    attend(m, be, [1703, 2, 1, 4], [0, 40, 1703], attn); // and some of its queries at a time
    attend(m, be, [1703, 2, 1, 4], [0, 1650, 1700], { ...attn, window: 700 });
  },
  "attention with window and soft cap": (m, be) =>
    attend(m, be, [83, 4, 4, 17], [0, 50, 83], { scale: 0.5, window: 13, softcap: 2 }),
  "cached attention": (m, be) => {
    const kc = m.sum(3, 40, 2, 20),
      vc = m.sum(3, 40, 2, 20),
      pos = m.ints(...range(30, (i) => i)),
      seq = m.ints(...range(30, () => 1));
    be.cacheWrite(kc, vc, m.f(30, 2, 20), m.f(30, 2, 20), seq, pos);
    be.attentionCached(m.out(30, 6, 20), m.f(30, 6, 20), kc, vc, seq, pos, { ...attn, window: 11 });
    be.attentionCached(m.out(3, 6, 20), m.f(3, 6, 20), kc, vc, m.ints(2, 1, 0), m.ints(39, 5, 0), attn);
  },
  "silu glu": (m, be) => be.glu(m.out(37, 501), m.f(37, 501), m.f(37, 501), "silu"),
  "gelu without up": (m, be) => be.glu(m.out(37, 501), m.f(37, 501), null, "gelu"),
  "gelu_tanh glu": (m, be) => be.glu(m.out(37, 501), m.f(37, 501), m.f(37, 501), "gelu_tanh"),
  gluBwd: (m, be) => {
    for (const act of ["silu", "gelu", "gelu_tanh"] as const) {
      be.gluBwd(m.out(37, 501), m.out(37, 501), m.out(37, 501), m.f(37, 501), m.f(37, 501), m.f(37, 501), act);
    }
    const gate = m.sum(5, 7);
    be.gluBwd(gate, null, m.out(5, 7), m.f(5, 7), gate, null, "gelu");
  },
  "element by element": (m, be) => {
    be.add(m.out(501, 67), m.f(501, 67), m.f(501, 67));
    be.scale(m.out(501, 67), m.f(501, 67), -0.7);
    be.divide(m.out(501, 67), m.f(501, 67), m.positive(501, 67));
    be.copy(m.out(130, 256), m.w("q4_k", 130, 256));
    be.copy(m.out(501, 67), m.w("bf16", 501, 67));
    be.dropout(m.out(501, 67), m.f(501, 67), m.ints(12, -5), 3, 0.3);
    be.scaleCols(m.out(37, 67), m.f(37, 67), m.f(67));
  },
  crossEntropy: (m, be) => {
    const target = m.ints(...range(37, (i) => i % 5 ? (i * 29) % 1003 : -100));
    const weight = m.w("f32", 37), mask = range(37, (i) => i % 5 ? 0.5 + i : 0);
    be.upload(weight, be.name === "reference" ? Float64Array.from(mask) : Float32Array.from(mask));
    for (const o of [{ softcap: 0, smoothing: 0, zLoss: 0 }, { softcap: 3, smoothing: 0.1, zLoss: 0.01 }]) {
      be.crossEntropy(m.out(37), m.sum(37, 1003), target, weight, o);
    }
  },
  optimiser: (m, be) => {
    const sum = m.watch(m.positive(1)), hyper = m.sum(8), g = m.f(70001);
    be.sumSquares(sum, g);
    const h = [0.01, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001, NaN];
    be.upload(hyper, be.name === "reference" ? Float64Array.from(h) : Float32Array.from(h));
    be.clipFactor(hyper, sum, 1.5);
    be.adamw(m.sum(70001), g, m.sum(70001), m.watch(m.positive(70001)), hyper);
  },
  columns: (m, be) => {
    be.colSum(m.sum(131), m.f(211, 131));
    be.colDot(m.sum(131), m.f(211, 131), m.f(211, 131));
    be.rowNorm(m.out(53), m.w("q8_0", 53, 96), m.f(5, 96), m.f(53, 5), 0.7);
  },
  matmul: (m, be) => {
    for (const [M, N, K] of [[1, 1, 1], [3, 70, 129], [5, 7, 3], [66, 300, 33], [130, 41, 515]]) {
      for (const [transA, transB] of [[false, false], [false, true], [true, false], [true, true]]) {
        const a = transA ? m.f(K, M) : m.f(M, K), b = transB ? m.f(N, K) : m.f(K, N);
        be.matmul(m.out(M, N), a, b, null, { transA, transB });
        be.matmul(m.sum(M, N), a, b, transA ? null : m.f(N), { transA, transB, alpha: -1.3, beta: 1 });
      }
    }
    const x = m.f(129, 24), y = m.f(129, 16); // thin: the operands change places
    be.matmul(m.sum(24, 16), x, y, null, { transA: true, alpha: 0.5, beta: 1 });
  },
  "matmul by blocks": (m, be) => {
    for (const t of ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "nf4"] as const) {
      const w = m.w(t, 71, 192);
      be.matmul(m.out(37, 71), m.f(37, 192), w, m.f(71), { transB: true });
      be.matmul(m.out(37, 192), m.f(37, 71), w, null, {});
      be.matmul(m.out(1, 71), m.f(1, 192), w, null, { transB: true });
      be.matmul(m.sum(7, 71), m.f(7, 192), w, m.f(71), { transB: true, alpha: 0.5, beta: 1 });
    }
    for (const t of ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs"] as const) {
      const w = m.w(t, 71, 768);
      be.matmul(m.out(37, 71), m.f(37, 768), w, null, { transB: true });
      be.matmul(m.out(37, 768), m.f(37, 71), w, null, { alpha: 2 });
      be.matmul(m.out(2, 71), m.f(2, 768), w, m.f(71), { transB: true });
      be.matmul(m.out(12, 71), m.f(12, 768), w, m.f(71), { transB: true });
    }
  },
};

/** What all written tensors hold, one after the other. */
async function runCase(be: Backend, work: (m: Maker, be: Backend) => void): Promise<Float64Array[]> {
  const m = new Maker(be);
  work(m, be);
  const results: Float64Array[] = [];
  for (const t of m.outputs) {
    const got = be.name === "reference" ? new Float64Array(numel(t)) : new Float32Array(numel(t));
    await be.download(t, got);
    results.push(Float64Array.from(got));
  }
  return results;
}

/** ‖a - b‖ / ‖b‖; NaN where either holds one. */
function distance(a: Float64Array, b: Float64Array): number {
  let d = 0, n = 0;
  a.forEach((x, i) => {
    d += (x - b[i]) ** 2;
    n += b[i] ** 2;
  });
  return Math.sqrt(d / (n || 1));
}

describe("each operation gives the reference's numbers, and the same bits on any number of threads with either tile", () => {
  for (const [name, work] of Object.entries(CASES)) {
    test(name, async () => {
      const [one, three, mul] = [
        await runCase(BACKENDS.one, work),
        await runCase(BACKENDS.three, work),
        await runCase(BACKENDS.mul, work),
      ];
      const want = await runCase(new ReferenceBackend(), work);
      expect(want.length).toBeGreaterThan(0);
      want.forEach((w, i) => {
        expect(three[i], `output ${i}, threads`).toEqual(one[i]);
        // f32 rounds to 6e-8; sums of hundreds of products and the polynomials of math.ts stay under 2e-6 in the norm
        expect(distance(one[i], w), `output ${i}, ${BACKENDS.one.device}`).toBeLessThan(2e-6);
        expect(distance(mul[i], w), `output ${i}, ${BACKENDS.mul.device}`).toBeLessThan(2e-6);
      });
    });
  }
});
