/**
 * How a product is cut: block sizes, who is the packed operand, and when a matrix-vector kernel is the better one.
 * Nothing here depends on the number of threads except how many rows make a unit, which changes no result.
 * @module
 */
import type { MatmulOpts } from "../src/core/backend.ts";
import { bytesOf, DTYPES } from "../src/core/dtype.ts";
import { cols, rowsOf, type Tensor } from "../src/core/tensor.ts";

/** A launch: kernel, units, integer and float arguments as assembly/matmul.ts reads them. */
export interface Plan {
  kernel: "matmul" | "matvec";
  units: number;
  args: number[];
  floats: number[];
}

/** Columns of a packed block: NB · KC floats fit the second-level cache beside the rows they meet. */
const NB = 256;
/** Most elements of k in a pass; a multiple of every quantised block. */
const KC = 512;
/** Rows of A up to which the matrix-vector kernel is used. */
const FEW = 4;
/** assembly/matmul.ts: rows of a transposed A packed at a time. */
const MC = 128;

/** One operand or result: where, floats or bytes between rows. */
type Address = (t: Tensor) => number;

const ceil = (a: number, b: number): number => Math.ceil(a / b);

/** Equal passes over K of at most KC, each a multiple of 256 (any block) except the last. */
function passLength(K: number, block: number): number {
  const step = Math.max(block, 4), passes = ceil(K, KC);
  return Math.min(KC, ceil(ceil(K, passes), step) * step);
}

/** The launch that computes c = alpha · op(a) · op(b) + beta · c (+ bias). Shapes have been checked. */
export function planMatmul(
  at: Address,
  threads: number,
  c: Tensor,
  a: Tensor,
  b: Tensor,
  bias: Tensor | null,
  o: MatmulOpts,
): Plan {
  const M = rowsOf(c), N = cols(c), K = o.transA ? rowsOf(a) : cols(a);
  const { code, block } = DTYPES[b.dtype], row = bytesOf(b.dtype, cols(b));
  const alpha = o.alpha ?? 1, beta = o.beta ?? 0, biasAt = bias ? at(bias) : 0;
  if (M <= FEW && o.transB && !o.transA) {
    const rows = Math.max(4, Math.min(64, ceil(32768, Math.max(1, K))));
    const args = [at(c), N, 1, at(a), cols(a), 0, at(b), code, row, 1, biasAt, M, N, K, 1024, rows, 0, 1, beta];
    return { kernel: "matvec", units: ceil(N, rows), args, floats: [alpha] };
  }
  // A thin product of a transposed A: its packing would cost as much as the product, so the operands change places.
  const swap = !!o.transA && !o.transB && b.dtype === "f32" && N <= 64 && M > N && !bias;
  if (swap) return cut(at, threads, c, true, b, true, a, code, bytesOf("f32", M), false, 0, N, M, K, 1, alpha, beta);
  return cut(at, threads, c, false, a, !!o.transA, b, code, row, !!o.transB, biasAt, M, N, K, block, alpha, beta);
}

function cut(
  at: Address,
  threads: number,
  c: Tensor,
  cT: boolean,
  a: Tensor,
  transA: boolean,
  b: Tensor,
  code: number,
  row: number,
  transB: boolean,
  bias: number,
  M: number,
  N: number,
  K: number,
  block: number,
  alpha: number,
  beta: number,
): Plan {
  const kc = passLength(K, transB ? block : 1), ldc = cols(c);
  const nb = Math.min(NB, Math.max(16, ceil(ceil(N, threads * 2), 16) * 16));
  const wide = block > 1 && !transB ? ceil(nb, block) * block : nb;
  const across = ceil(N, wide), down = Math.max(1, Math.min(ceil(M, 16), ceil(2 * threads, across)));
  const rows = across >= 2 * threads ? M : ceil(ceil(M, down), 4) * 4;
  const panel = kc * ceil(wide, 16) * 16;
  const strip = Math.max(16 * kc, wide, transA ? MC * kc : 0);
  const args = [
    at(c),
    cT ? 1 : ldc,
    cT ? ldc : 1,
    at(a),
    cols(a),
    transA ? 1 : 0,
    at(b),
    code,
    row,
    transB ? 1 : 0,
    bias,
    M,
    N,
    K,
    kc,
    wide,
    rows,
    across,
    beta,
    panel,
    panel + strip,
  ];
  return { kernel: "matmul", units: across * ceil(M, rows), args, floats: [alpha] };
}
