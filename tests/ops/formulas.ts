/** What formulas of several operations have in common, in f64 and as plainly as can be. @module */

/** a·b [M,N] over K; a is [M,K], or [K,M] with `ta`; b is [K,N], or [N,K] with `tb`. */
export function product(
  M: number,
  N: number,
  K: number,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  o: { ta?: boolean; tb?: boolean } = {},
): Float64Array {
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a[o.ta ? k * M + m : m * K + k] * b[o.tb ? n * K + k : k * N + n];
      c[m * N + n] = sum;
    }
  }
  return c;
}

/** a + factor·b. */
export function plus(a: Float64Array, b: Float64Array, factor = 1): Float64Array {
  return a.map((x, i) => x + factor * b[i]);
}
