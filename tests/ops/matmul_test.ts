/** matmul: all transposes, scaling and adding, biases, and weights of every type read where they lie. */
import type { MatmulOpts } from "../../src/core/backend.ts";
import { type DType, DTYPES } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import { type Case, inout, input, output, testOp, type Values } from "./harness.ts";

interface Sizes {
  M: number;
  N: number;
  K: number;
}

/** The definition, element by element. */
function product({ M, N, K }: Sizes, o: MatmulOpts) {
  return ({ a, b, c, bias }: Values): Record<string, Float64Array> => {
    const out = new Float64Array(M * N), [ai, ak] = o.transA ? [1, M] : [K, 1], [bj, bk] = o.transB ? [K, 1] : [1, N];
    for (let i = 0; i < M; i++) {
      for (let j = 0; j < N; j++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += a[i * ai + k * ak] * b[j * bj + k * bk];
        out[i * N + j] = (o.alpha ?? 1) * sum + (o.beta ? c[i * N + j] : 0) + (bias ? bias[j] : 0);
      }
    }
    return { c: out };
  };
}

function matmulCase(name: string, s: Sizes, o: MatmulOpts, more: { bias?: boolean; b?: DType } = {}): Case {
  const { M, N, K } = s;
  return {
    name: `${name} [${M},${K}]x[${K},${N}]${o.transA ? " aT" : ""}${o.transB ? " bT" : ""}`,
    tensors: {
      a: input(o.transA ? [K, M] : [M, K]),
      b: input(o.transB ? [N, K] : [K, N], 1, more.b ?? "act"),
      c: o.beta ? inout([M, N]) : output([M, N]),
      ...(more.bias ? { bias: input([N]) } : {}),
    },
    run: (be, { a, b, c, bias }) => be.matmul(c, a, b, bias ?? null, o),
    formula: product(s, o),
  };
}

const SIZES: Sizes[] = [
  { M: 1, N: 1, K: 1 },
  { M: 1, N: 7, K: 3 },
  { M: 5, N: 1, K: 13 },
  { M: 3, N: 5, K: 1 },
  { M: 17, N: 31, K: 29 },
  { M: 64, N: 64, K: 64 },
  { M: 33, N: 130, K: 257 },
  { M: 61, N: 523, K: 1300 },
  { M: 24, N: 64, K: 24 },
  { M: 25, N: 65, K: 31 },
];
const TRANSPOSES: MatmulOpts[] = [{}, { transB: true }, { transA: true }, { transA: true, transB: true }];

const dense = SIZES.flatMap((s) => TRANSPOSES.map((o) => matmulCase("multiplies", s, o)));
const options = TRANSPOSES.flatMap((o) => [
  matmulCase("scales and adds to c", { M: 19, N: 23, K: 37 }, { ...o, alpha: -0.5, beta: 1 }),
  matmulCase("scales and adds to c", { M: 31, N: 69, K: 700 }, { ...o, alpha: -0.5, beta: 1 }),
  matmulCase("adds to c with a bias", { M: 26, N: 71, K: 40 }, { ...o, beta: 1 }, { bias: true }),
  matmulCase("adds a bias", { M: 6, N: 11, K: 40 }, { ...o, alpha: 2 }, { bias: true }),
  matmulCase("adds to c with a bias", { M: 2, N: 9, K: 5 }, { ...o, beta: 1 }, { bias: true }),
]);
const WEIGHTS = (Object.keys(DTYPES) as DType[]).filter((d) => d !== "i32" && d !== "u8" && d !== "fp8_128");
const weights = WEIGHTS.flatMap((b) => [
  matmulCase(`reads ${b} for one token`, { M: 1, N: 7, K: 256 }, { transB: true }, { b }),
  matmulCase(`reads ${b} for many tokens, with a bias`, { M: 37, N: 45, K: 512 }, { transB: true }, { b, bias: true }),
  matmulCase(`reads ${b} for many tokens`, { M: 25, N: 67, K: 1280 }, { transB: true }, { b }),
  matmulCase(`reads ${b} without a transpose`, { M: 25, N: 512, K: 41 }, {}, { b }),
  matmulCase(`reads ${b} without a transpose`, { M: 5, N: 256, K: 19 }, {}, { b }),
  matmulCase(`adds a product with ${b}`, { M: 33, N: 256, K: 7 }, { beta: 1, alpha: 0.5 }, { b }),
]);

/**
 * Few results over a long inner axis, as x·Aᵀ of an adapter or a short text's logits backwards: backends split it, and add the
 * parts in a fixed order.
 */
const long = [
  ...TRANSPOSES.map((o) => matmulCase("multiplies", { M: 21, N: 16, K: 1100 }, o)),
  matmulCase("adds, with a bias,", { M: 40, N: 8, K: 2049 }, { transB: true, alpha: 0.5, beta: 1 }, { bias: true }),
  matmulCase("reads an f32 adapter,", { M: 9, N: 16, K: 1536 }, { transB: true }, { b: "f32" }),
  matmulCase("reads q4_k,", { M: 9, N: 24, K: 1536 }, { transB: true }, { b: "q4_k" }),
  matmulCase("multiplies", { M: 70, N: 72, K: 8200 }, {}),
  matmulCase("adds, with a bias,", { M: 270, N: 136, K: 2056 }, { alpha: 0.5, beta: 1 }, { bias: true }),
  matmulCase("adds, with a bias,", { M: 90, N: 264, K: 4360 }, { transB: true, alpha: -0.5, beta: 1 }, { bias: true }),
];

/** What a LoRA step multiplies: activations by f32 adapters, activations by activations into f32 gradients. */
const mixed: Case[] = [
  {
    name: "adds activations times an f32 adapter [37,8]x[8,45]",
    tensors: { a: input([37, 8]), b: input([45, 8], 1, "f32"), c: inout([37, 45]) },
    run: (be, { a, b, c }) => be.matmul(c, a, b, null, { transB: true, alpha: 0.5, beta: 1 }),
    formula: product({ M: 37, N: 45, K: 8 }, { transB: true, alpha: 0.5, beta: 1 }),
  },
  {
    name: "adds a product of activations to an f32 gradient [8,77]x[77,45]",
    tensors: { a: input([77, 8]), b: input([77, 45]), c: inout([8, 45], 1, "f32") },
    run: (be, { a, b, c }) => be.matmul(c, a, b, null, { transA: true, beta: 1 }),
    formula: product({ M: 8, N: 45, K: 77 }, { transA: true, beta: 1 }),
  },
  {
    name: "adds a bias that is f32",
    tensors: { a: input([5, 16]), b: input([9, 16]), c: output([5, 9]), bias: input([9], 1, "f32") },
    run: (be, { a, b, c, bias }) => be.matmul(c, a, b, bias, { transB: true }),
    formula: product({ M: 5, N: 9, K: 16 }, { transB: true }),
  },
];

/** Sizes nobody chose, from a fixed seed. */
const random = new Random(2024);
const drawn = Array.from({ length: 24 }, () => {
  const size = (): number => 1 + Math.floor(2 ** (random.uniform() * 7.5)), s = { M: size(), N: size(), K: size() };
  const o = {
    transA: random.below(2) === 1,
    transB: random.below(2) === 1,
    alpha: random.normal(),
    beta: random.below(2) as 0 | 1,
  };
  return matmulCase("drawn", s, o, { bias: random.below(2) === 1 });
});

testOp("matmul", [
  ...mixed,
  ...drawn,
  ...dense,
  ...options,
  ...weights,
  ...long,
  {
    name: "flattens leading axes",
    tensors: { a: input([3, 5, 8]), b: input([6, 8]), c: output([3, 5, 6]) },
    run: (be, { a, b, c }) => be.matmul(c, a, b, null, { transB: true }),
    formula: product({ M: 15, N: 6, K: 8 }, { transB: true }),
  },
  {
    name: "does not read c when beta is 0",
    tensors: { a: input([4, 4]), b: input([4, 4]), c: inout([4, 4], new Array(16).fill(Infinity)) },
    run: (be, { a, b, c }) => be.matmul(c, a, b, null, {}),
    formula: product({ M: 4, N: 4, K: 4 }, {}),
  },
]);
