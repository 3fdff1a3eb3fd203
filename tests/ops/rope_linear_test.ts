/**
 * Linears whose results are rotated, issued together as attention issues them: a backend may rotate a product's sums before it
 * writes them, with sines that it keeps for all results at the same positions. Sizes lie on and off every tile.
 */
import type { Backend } from "../../src/core/backend.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { plus, product } from "./formulas.ts";
import { type Case, input, ints, output, type Spec, type Tensors, testOp, type Values } from "./harness.ts";

const R = 16;

/** One linear over the common input. */
interface Side {
  readonly heads: number;
  readonly d: number;
  readonly half: number;
  readonly bias?: "act" | "f32";
  readonly adapter?: boolean;
  /** What happens to the result, in this order. */
  readonly then: readonly ("turn" | "turn back" | "add" | "more")[];
}

interface Shape {
  readonly name: string;
  readonly N: number;
  readonly K: number;
  readonly factor?: number;
  readonly sides: readonly Side[];
}

/** Pairs as complex numbers times factor · e^(i·sign·pos·freq). */
function rotate(y: Float64Array, { heads, d, half }: Side, v: Values, sign: number, factor: number): void {
  for (let row = 0; row < y.length / d; row++) {
    for (let i = 0; i < half; i++) {
      const angle = sign * v.pos[Math.floor(row / heads)] * v[`freqs${half}`][i], at = row * d + i;
      const [re, im] = [y[at], y[at + half]], [c, s] = [factor * Math.cos(angle), factor * Math.sin(angle)];
      y[at] = re * c - im * s, y[at + half] = im * c + re * s;
    }
  }
}

function tensorsOf({ N, K, sides }: Shape): Record<string, Spec> {
  const tensors: Record<string, Spec> = { x: input([N, K]) };
  tensors.pos = ints(...Array.from({ length: N }, (_, n) => n % 91));
  sides.forEach(({ heads, d, half, bias, adapter, then }, i) => {
    const W = heads * d;
    tensors[`freqs${half}`] = input([half], Array.from({ length: half }, (_, j) => 1000 ** (-j / half)), "f32");
    tensors[`w${i}`] = input([W, K], 0.1), tensors[`y${i}`] = output([N, W]);
    if (bias) tensors[`bias${i}`] = input([W], 1, bias);
    if (adapter) {
      tensors[`a${i}`] = input([R, K], 0.1, "f32"), tensors[`b${i}`] = input([W, R], 0.1, "f32");
      tensors[`xa${i}`] = output([N, R]);
    }
    if (then.includes("add")) tensors[`add${i}`] = input([N, W]);
  });
  return tensors;
}

function run(be: Backend, t: Tensors, { N, factor = 1, sides }: Shape): void {
  sides.forEach(({ bias, adapter }, i) => {
    be.matmul(t[`y${i}`], t.x, t[`w${i}`], bias ? t[`bias${i}`] : null, { transB: true });
    if (!adapter) return;
    be.matmul(t[`xa${i}`], t.x, t[`a${i}`], null, { transB: true });
    be.matmul(t[`y${i}`], t[`xa${i}`], t[`b${i}`], null, { transB: true, beta: 1 });
  });
  sides.forEach(({ heads, d, half, then }, i) => {
    const y: Tensor = { ...t[`y${i}`], shape: [N, heads, d] };
    for (const what of then) {
      if (what === "add") be.add(t[`y${i}`], t[`y${i}`], t[`add${i}`]);
      else if (what === "more") be.matmul(t[`y${i}`], t.x, t[`w${i}`], null, { transB: true, beta: 1 });
      else be.rope(y, t.pos, t[`freqs${half}`], { sign: what === "turn" ? 1 : -1, factor });
    }
  });
}

function formula(v: Values, { N, K, factor = 1, sides }: Shape): Record<string, Float64Array> {
  const out: Record<string, Float64Array> = {};
  sides.forEach((side, i) => {
    const W = side.heads * side.d, bias = v[`bias${i}`], xw = product(N, W, K, v.x, v[`w${i}`], { tb: true });
    let y: Float64Array = bias ? xw.map((s, j) => s + bias[j % W]) : xw.slice();
    if (side.adapter) {
      const xa = out[`xa${i}`] = product(N, R, K, v.x, v[`a${i}`], { tb: true });
      y = plus(y, product(N, W, R, xa, v[`b${i}`], { tb: true }));
    }
    for (const what of side.then) {
      if (what === "add") y = plus(y, v[`add${i}`]);
      else if (what === "more") y = plus(y, xw);
      else rotate(y, side, v, what === "turn" ? 1 : -1, factor);
    }
    out[`y${i}`] = y;
  });
  return out;
}

const turned = (heads: number, d: number, more: Partial<Side> = {}): Side => {
  return { heads, d, half: d / 2, then: ["turn"], ...more };
};
const plain = (heads: number, d: number, more: Partial<Side> = {}): Side => turned(heads, d, { then: [], ...more });

const SHAPES: Shape[] = [
  { name: "q, k, v of 128", N: 64, K: 72, sides: [turned(3, 128), turned(1, 128), plain(1, 128)] },
  {
    name: "q, k, v of 128 with adapters",
    N: 137,
    K: 136,
    sides: [turned(2, 128, { adapter: true }), turned(1, 128, { adapter: true }), plain(1, 128, { adapter: true })],
  },
  { name: "q, k, v of 128, two tiles of rows", N: 300, K: 64, sides: [turned(5, 128), turned(2, 128), plain(2, 128)] },
  { name: "q, k, v of 64", N: 200, K: 72, sides: [turned(9, 64), turned(3, 64), plain(3, 64)] },
  {
    name: "q, k, v of 64 with biases and adapters",
    N: 130,
    K: 64,
    sides: [
      turned(5, 64, { bias: "act", adapter: true }),
      turned(1, 64, { bias: "f32", adapter: true }),
      plain(1, 64, { bias: "act" }),
    ],
  },
  { name: "a bias, and a factor", N: 65, K: 64, factor: 1.19, sides: [turned(2, 128, { bias: "f32" })] },
  {
    name: "turned back",
    N: 90,
    K: 64,
    sides: [turned(2, 128, { then: ["turn back"] }), turned(1, 64, { then: ["turn back"] })],
  },
  { name: "fewer rows than a product on tiles has", N: 5, K: 64, sides: [turned(2, 128), turned(2, 64)] },
  { name: "heads of 80, and half of a head", N: 96, K: 64, sides: [turned(2, 80), turned(2, 128, { half: 32 })] },
  {
    name: "what comes before and after a rotation",
    N: 96,
    K: 64,
    sides: [
      turned(2, 128, { then: ["turn", "add"] }),
      turned(2, 128, { then: ["add", "turn"] }),
      turned(2, 128, { then: ["turn", "more"] }),
      turned(2, 64, { then: ["turn", "turn", "turn back"] }),
      turned(2, 128, { then: ["turn", "turn back"] }),
    ],
  },
];

testOp(
  "rope",
  SHAPES.map((s): Case => ({
    name: `behind linears: ${s.name}, ${s.N} rows`,
    tensors: tensorsOf(s),
    run: (be, t) => run(be, t, s),
    formula: (v) => formula(v, s),
    // Angles are rounded to f32: 6e-8 · 91 radians. Up to four roundings to 16 bits follow each other.
    slack: 3,
  })),
);
