/**
 * One call of every operation, with sizes off the kernels' tiles: what `doctor --metal` runs on a user's GPU and compares
 * with the CPU backend.
 * @module
 */
import type { Ops } from "../src/core/backend.ts";
import type { DType } from "../src/core/dtype.ts";
import type { Tensor } from "../src/core/tensor.ts";

/** A tensor of a call: "act" is the run's activation type; numbers are integers to store, a number the size of random ones. */
export interface Operand {
  readonly shape: readonly number[];
  readonly dtype: DType | "act";
  readonly from: number | readonly number[];
  /** Compared after the call. */
  readonly out: boolean;
}

/** An operation with its operands by name. */
export interface Call {
  readonly name: string;
  readonly operands: Readonly<Record<string, Operand>>;
  run(be: Ops, t: Record<string, Tensor>): void;
}

const act = (...shape: number[]): Operand => ({ shape, dtype: "act", from: 1, out: false });
const f32 = (...shape: number[]): Operand => ({ shape, dtype: "f32", from: 1, out: false });
const positive = (...shape: number[]): Operand => ({ shape, dtype: "f32", from: -1, out: false });
const ints = (...from: number[]): Operand => ({ shape: [from.length], dtype: "i32", from, out: false });
const floats = (...from: number[]): Operand => ({ shape: [from.length], dtype: "f32", from, out: false });
const weight = (dtype: DType, ...shape: number[]): Operand => ({ shape, dtype, from: 1, out: false });
const bytes = (n: number): Operand => {
  return { shape: [n], dtype: "u8", from: Array.from({ length: n }, (_, i) => i * 7 % 256), out: false };
};
const out = (o: Operand): Operand => ({ ...o, out: true });

const HYPER = floats(1e-3, 0.9, 0.99, 1e-8, 0.01, 0.2, 0.1, 0.7);
/** Signed codes, then unsigned ones. */
const CODES: readonly number[] = Array.from({ length: 512 }, (_, i) => i < 256 ? (i - 128) / 127 : (i - 256) / 255);
const QUANTS: readonly DType[] = [
  ...(["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k"] as const),
  ...(["q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "nf4", "fp8_e4m3"] as const),
];

function elementwise(): Call[] {
  const x = act(7, 37), y = act(7, 37), seed = ints(12, 345);
  return [
    { name: "add", operands: { x, y, o: out(x) }, run: (be, t) => be.add(t.o, t.x, t.y) },
    { name: "scale", operands: { x, o: out(x) }, run: (be, t) => be.scale(t.o, t.x, 1.5) },
    {
      name: "divide",
      operands: { x: f32(99), y: positive(99), o: out(f32(99)) },
      run: (be, t) => be.divide(t.o, t.x, t.y),
    },
    { name: "scaleCols", operands: { x, s: f32(37), o: out(x) }, run: (be, t) => be.scaleCols(t.o, t.x, t.s) },
    { name: "colSum", operands: { x, o: out(f32(37)) }, run: (be, t) => be.colSum(t.o, t.x) },
    { name: "colDot", operands: { x, y, o: out(f32(37)) }, run: (be, t) => be.colDot(t.o, t.x, t.y) },
    { name: "dropout", operands: { x, seed, o: out(x) }, run: (be, t) => be.dropout(t.o, t.x, t.seed, 3, 0.25) },
    { name: "noise", operands: { x, s: f32(7), seed, o: out(x) }, run: (be, t) => be.noise(t.o, t.x, t.s, t.seed, 4) },
    ...(["silu", "gelu", "gelu_tanh"] as const).flatMap((a): Call[] => [
      { name: `glu ${a}`, operands: { x, y, o: out(x) }, run: (be, t) => be.glu(t.o, t.x, t.y, a) },
      {
        name: `gluBwd ${a}`,
        operands: { x, y, d: act(7, 37), h: out(x), dx: out(x), dy: out(x) },
        run: (be, t) => be.gluBwd(t.dx, t.dy, t.h, t.d, t.x, t.y, a),
      },
    ]),
  ];
}

function rows(): Call[] {
  const x = act(5, 640), w = f32(640), ids = ints(3, 0, 3, 10, 3);
  const norms = ([["rms", false], ["layer", true]] as const).map(([kind, biased]): Call => ({
    name: `norm and normBwd ${kind}`,
    operands: {
      ...{ x, w, b: f32(640), d: act(5, 640), o: out(x), stat: out(f32(5, 2)) },
      ...{ dx: out(x), dw: out(w), db: out(w) },
    },
    run: (be, t) => {
      const o = { kind, eps: 1e-5, plusOne: !biased };
      be.norm(t.o, t.stat, t.x, t.w, biased ? t.b : null, o);
      be.normBwd(t.dx, t.dw, biased ? t.db : null, t.d, t.x, t.w, t.stat, o);
    },
  }));
  return [
    ...norms,
    {
      name: "rope",
      operands: { x: out(act(5, 3, 10)), pos: ints(0, 1, 2, 0, 900), freqs: floats(1, 0.1, 0.01, 0.001) },
      run: (be, t) => be.rope(t.x, t.pos, t.freqs, { sign: -1, factor: 1.5 }),
    },
    {
      name: "embed",
      operands: { table: weight("q4_k", 11, 512), ids, o: out(act(5, 512)) },
      run: (be, t) => be.embed(t.o, t.table, t.ids, 2),
    },
    {
      name: "embedBwd",
      operands: { table: out(f32(11, 512)), ids, d: act(5, 512) },
      run: (be, t) => be.embedBwd(t.table, t.d, t.ids, 2),
    },
    {
      name: "rowNorm",
      operands: { w: weight("q6_k", 11, 512), a: f32(3, 512), b: f32(11, 3), o: out(f32(11)) },
      run: (be, t) => be.rowNorm(t.o, t.w, t.a, t.b, 0.5),
    },
    {
      name: "crossEntropy",
      operands: { z: out(act(4, 999)), y: ints(0, 998, 5, 7), w: floats(1, 0.5, 0, 2), loss: out(f32(4)) },
      run: (be, t) => be.crossEntropy(t.loss, t.z, t.y, t.w, { softcap: 30, smoothing: 0.1, zLoss: 1e-3 }),
    },
  ];
}

function products(): Call[] {
  const plain = [[45, 67, 39], [300, 70, 259], [13, 2100, 16]].flatMap(([M, K, N]) =>
    [0, 1, 2, 3].map((i): Call => {
      const o = { transA: (i & 1) === 1, transB: (i & 2) === 2, alpha: 0.5, beta: (i & 1) as 0 | 1 };
      return {
        name: `matmul [${M},${K}]x[${K},${N}]${o.transA ? " aT" : ""}${o.transB ? " bT" : ""}`,
        operands: {
          a: o.transA ? act(K, M) : act(M, K),
          b: o.transB ? act(N, K) : act(K, N),
          ...{ bias: f32(N), c: out(act(M, N)) },
        },
        run: (be, t) => be.matmul(t.c, t.a, t.b, t.bias, o),
      };
    })
  );
  const quantised = QUANTS.flatMap((q): Call[] => [
    {
      name: `matmul of 3 rows with ${q}`,
      operands: { a: act(3, 256), b: weight(q, 37, 256), c: out(act(3, 37)) },
      run: (be, t) => be.matmul(t.c, t.a, t.b, null, { transB: true }),
    },
    {
      name: `matmul of 21 rows with ${q}`,
      operands: { a: act(21, 256), b: weight(q, 37, 256), c: out(act(21, 37)) },
      run: (be, t) => be.matmul(t.c, t.a, t.b, null, { transB: true }),
    },
  ]);
  return [...plain, ...quantised];
}

function attention(): Call[] {
  const N = 75, H = 4, K = 2, L = 70;
  const packed = ([[20, 0, 0], [64, 13, 0], [100, 0, 5], [256, 0, 0]] as const).map(([d, window, softcap]): Call => {
    const q = act(N, H, d), k = act(N, K, d), o = { scale: 1 / Math.sqrt(d), window, softcap };
    return {
      name: `attention and attentionBwd, heads of ${d}`,
      operands: {
        ...{ q, k, v: k, cu: ints(0, 41, 41, 70), g: q, o: out(q), lse: out(f32(H, N)) },
        ...{ dq: out(q), dk: out(k), dv: out(k) },
      },
      run: (be, t) => {
        const s = { cu: t.cu, maxLen: 41 };
        be.attention(t.o, t.lse, t.q, t.k, t.v, s, o);
        be.attentionBwd(t.dq, t.dk, t.dv, t.g, t.q, t.k, t.v, t.o, t.lse, s, o);
      },
    };
  });
  return [...packed, {
    name: "cacheWrite and attentionCached",
    operands: {
      ...{ kc: out(act(2, L, K, 20)), vc: out(act(2, L, K, 20)), k: act(3, K, 20), v: act(3, K, 20) },
      ...{ q: act(3, H, 20), seq: ints(1, 0, 1), pos: ints(69, 3, 12), o: out(act(3, H, 20)) },
    },
    run: (be, t) => {
      be.cacheWrite(t.kc, t.vc, t.k, t.v, t.seq, t.pos);
      be.attentionCached(t.o, t.q, t.kc, t.vc, t.seq, t.pos, { scale: 0.3, window: 9, softcap: 5 });
    },
  }];
}

function optimizers(): Call[] {
  const p = f32(5, 512), g = f32(5, 512), hyper = HYPER, m = f32(5, 512), v = positive(5, 512);
  return [
    { name: "sumSquares", operands: { g, o: out(f32(1)) }, run: (be, t) => be.sumSquares(t.o, t.g) },
    { name: "clipFactor", operands: { h: out(HYPER), s: floats(9) }, run: (be, t) => be.clipFactor(t.h, t.s, 1) },
    {
      name: "adamw",
      operands: { p: out(p), g, m: out(m), v: out(v), hyper },
      run: (be, t) => be.adamw(t.p, t.g, t.m, t.v, t.hyper),
    },
    {
      name: "adamw8",
      operands: {
        ...{ p: out(f32(512)), g: f32(512), hyper, absmax: out(floats(0.5, 0.25, 0.5, 0.25)) },
        ...{ m: bytes(512), v: bytes(512), codes: floats(...CODES) },
      },
      run: (be, t) => be.adamw8(t.p, t.g, t.m, t.v, t.absmax, t.codes, t.hyper),
    },
    { name: "sgd", operands: { p: out(p), g, m: out(m), hyper }, run: (be, t) => be.sgd(t.p, t.g, t.m, t.hyper) },
    { name: "lion", operands: { p: out(p), g, m: out(m), hyper }, run: (be, t) => be.lion(t.p, t.g, t.m, t.hyper) },
    {
      name: "adafactor",
      operands: { p: out(p), g, row: out(positive(5)), col: out(positive(512)), hyper },
      run: (be, t) => be.adafactor(t.p, t.g, t.row, t.col, t.hyper),
    },
  ];
}

/** All of them; copy is exercised by what surrounds them (examine.ts). */
export const CALLS: readonly Call[] = [...elementwise(), ...rows(), ...products(), ...attention(), ...optimizers()];
