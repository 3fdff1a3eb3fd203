/**
 * c = alpha · op(a) · op(b) + beta · c in f64. Both operands are laid out with the inner axis last, then 4 by 4 outputs
 * are summed together: the only place of the reference where speed is bought, since the golden models run on it.
 * @module
 */
import type { MatmulOpts } from "../../src/core/backend.ts";

/** [rows,cols] to [cols,rows]. */
export function transpose(x: Float64Array, rows: number, cols: number): Float64Array {
  const out = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = x[r * cols + c];
  return out;
}

/** @param M rows of c  @param N columns of c  @param K inner size */
export function matmul(
  c: Float64Array, /*[M,N]*/
  a: Float64Array,
  b: Float64Array,
  bias: Float64Array | null, /*[N]*/
  { M, N, K }: { M: number; N: number; K: number },
  { transA = false, transB = false, alpha = 1, beta = 0 }: MatmulOpts,
): void {
  const left = transA ? transpose(a, K, M) : a, right = transB ? b : transpose(b, K, N);
  const put = (i: number, j: number, sum: number): void => {
    const at = i * N + j;
    c[at] = alpha * sum + (beta === 0 ? 0 : beta * c[at]) + (bias === null ? 0 : bias[j]);
  };
  const M4 = M - M % 4, N4 = N - N % 4;
  for (let j = 0; j < N4; j += 4) {
    for (let i = 0; i < M4; i += 4) tile(left, right, K, i, j, put);
  }
  for (let i = 0; i < M; i++) {
    for (let j = i < M4 ? N4 : 0; j < N; j++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += left[i * K + k] * right[j * K + k];
      put(i, j, sum);
    }
  }
}

/** Rows i..i+4 of `a` with rows j..j+4 of `b`. */
function tile(
  a: Float64Array,
  b: Float64Array,
  K: number,
  i: number,
  j: number,
  put: (i: number, j: number, sum: number) => void,
): void {
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
  let s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
  const a0 = i * K, a1 = a0 + K, a2 = a1 + K, a3 = a2 + K, b0 = j * K, b1 = b0 + K, b2 = b1 + K, b3 = b2 + K;
  for (let k = 0; k < K; k++) {
    const x0 = a[a0 + k], x1 = a[a1 + k], x2 = a[a2 + k], x3 = a[a3 + k];
    const y0 = b[b0 + k], y1 = b[b1 + k], y2 = b[b2 + k], y3 = b[b3 + k];
    s00 += x0 * y0, s01 += x0 * y1, s02 += x0 * y2, s03 += x0 * y3;
    s10 += x1 * y0, s11 += x1 * y1, s12 += x1 * y2, s13 += x1 * y3;
    s20 += x2 * y0, s21 += x2 * y1, s22 += x2 * y2, s23 += x2 * y3;
    s30 += x3 * y0, s31 += x3 * y1, s32 += x3 * y2, s33 += x3 * y3;
  }
  put(i, j, s00), put(i, j + 1, s01), put(i, j + 2, s02), put(i, j + 3, s03);
  put(i + 1, j, s10), put(i + 1, j + 1, s11), put(i + 1, j + 2, s12), put(i + 1, j + 3, s13);
  put(i + 2, j, s20), put(i + 2, j + 1, s21), put(i + 2, j + 2, s22), put(i + 2, j + 3, s23);
  put(i + 3, j, s30), put(i + 3, j + 1, s31), put(i + 3, j + 2, s32), put(i + 3, j + 3, s33);
}
