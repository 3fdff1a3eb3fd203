/** add, copy, scale, divide, scaleCols, colSum, colDot, sumSquares: one pass over memory each. */
import { type DType, DTYPES, isQuant } from "../../src/core/dtype.ts";
import { type Case, inout, input, output, testOp, type Values } from "./harness.ts";

const SHAPES: [number, number][] = [[1, 1], [1, 7], [3, 5], [17, 131], [33, 256], [2, 4099]];
const over = (make: (N: number, D: number) => Case[]): Case[] => SHAPES.flatMap(([N, D]) => make(N, D));

testOp("add", [
  ...over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { a: input([N, D]), b: input([N, D]), out: output([N, D]) },
    run: (be, { out, a, b }) => be.add(out, a, b),
    formula: ({ a, b }) => ({ out: a.map((x, i) => x + b[i]) }),
  }]),
  {
    name: "into its first input",
    tensors: { a: inout([5, 33]), b: input([5, 33]) },
    run: (be, { a, b }) => be.add(a, a, b),
    formula: ({ a, b }) => ({ a: a.map((x, i) => x + b[i]) }),
  },
  {
    name: "into its second input",
    tensors: { a: input([5, 33]), b: inout([5, 33]) },
    run: (be, { a, b }) => be.add(b, a, b),
    formula: ({ a, b }) => ({ b: a.map((x, i) => x + b[i]) }),
  },
]);

testOp("scale", [
  ...over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { x: input([N, D]), out: output([N, D]) },
    run: (be, { out, x }) => be.scale(out, x, -1.5),
    formula: ({ x }) => ({ out: x.map((v) => -1.5 * v) }),
  }]),
  {
    name: "in place",
    tensors: { x: inout([7, 19]) },
    run: (be, { x }) => be.scale(x, x, 0.25),
    formula: ({ x }) => ({ x: x.map((v) => v / 4) }),
  },
]);

const FLOATS: DType[] = ["f32", "bf16", "f16"];
const STORED = (Object.keys(DTYPES) as DType[]).filter((d) => isQuant(d) || d === "fp8_e4m3");
const copyCase = (from: DType, to: DType, N: number, D: number): Case => ({
  name: `${from} to ${to} [${N},${D}]`,
  tensors: { x: input([N, D], 2, from), out: output([N, D], to) },
  run: (be, { out, x }) => be.copy(out, x),
  // The reference does not round to `to`; the tolerance of that type covers one rounding.
  formula: ({ x }) => ({ out: x }),
});
testOp("copy", [
  ...FLOATS.flatMap((from) => FLOATS.flatMap((to) => [copyCase(from, to, 3, 5), copyCase(from, to, 7, 259)])),
  ...STORED.flatMap((from) => FLOATS.map((to) => copyCase(from, to, 3, 512))),
]);

testOp(
  "divide",
  over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { a: input([N, D], 1, "f32"), b: input([N, D], values(N * D), "f32"), out: output([N, D], "f32") },
    run: (be, { out, a, b }) => be.divide(out, a, b),
    formula: ({ a, b }) => ({ out: a.map((x, i) => x / b[i]) }),
  }]),
);

/** Numbers away from zero, of both signs. */
function values(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i % 2 ? -1 : 1) * (0.5 + (i * 7 % 13) / 3));
}

testOp("scaleCols", [
  ...over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { x: input([N, D]), s: input([D], 1, "f32"), out: output([N, D]) },
    run: (be, { out, x, s }) => be.scaleCols(out, x, s),
    formula: ({ x, s }) => ({ out: x.map((v, i) => v * s[i % D]) }),
  }]),
  {
    name: "in place",
    tensors: { x: inout([4, 21]), s: input([21], 1, "f32") },
    run: (be, { x, s }) => be.scaleCols(x, x, s),
    formula: ({ x, s }) => ({ x: x.map((v, i) => v * s[i % 21]) }),
  },
]);

/** Adds column sums of `term` to out. */
function columns(D: number, term: (x: Values, i: number) => number) {
  return (x: Values): Record<string, Float64Array> => {
    const out = x.out.slice(), count = (x.a ?? x.x).length;
    for (let j = 0; j < D; j++) for (let i = j; i < count; i += D) out[j] += term(x, i);
    return { out };
  };
}
testOp(
  "colSum",
  over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { x: input([N, D]), out: inout([D], 1, "f32") },
    run: (be, { out, x }) => be.colSum(out, x),
    formula: columns(D, ({ x }, i) => x[i]),
  }]),
);
testOp(
  "colDot",
  over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { a: input([N, D]), b: input([N, D]), out: inout([D], 1, "f32") },
    run: (be, { out, a, b }) => be.colDot(out, a, b),
    formula: columns(D, ({ a, b }, i) => a[i] * b[i]),
  }]),
);

testOp(
  "sumSquares",
  over((N, D) => [{
    name: `[${N},${D}]`,
    tensors: { g: input([N, D], 1, "f32"), out: inout([1], [3], "f32") },
    run: (be, { out, g }) => be.sumSquares(out, g),
    formula: ({ g }) => ({ out: [g.reduce((s, x) => s + x * x, 3)] }),
  }]),
);
