/**
 * Singular value decomposition of a product of two thin matrices, in f64: QR of either, then one-sided Jacobi (Hestenes
 * 1958) of the small matrix between. Sizes are LoRA's: thousands of rows, tens of columns.
 * @module
 */

/** A matrix by columns, each a Float64Array. */
export type Columns = readonly Float64Array[];

/** B·A = Σ sigma[i] · u[i] · v[i]ᵀ, largest first. */
export interface ProductSvd {
  readonly sigma: Float64Array /* [R] */;
  /** Orthonormal, but for those of sigma 0. */
  readonly u: Columns /* R columns of O */;
  readonly v: Columns /* R columns of I */;
}

const dot = (x: ArrayLike<number>, y: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
};

/** q·r of columns: modified Gram-Schmidt, twice (Giraud, Langou & Rozložník 2005: then q is orthogonal to rounding). */
function thinQr(columns: Columns): { q: Float64Array[]; r: Float64Array[] /* r[i][j], i <= j */ } {
  const n = columns.length, q: Float64Array[] = [], r = columns.map(() => new Float64Array(n));
  columns.forEach((column, j) => {
    const x = column.slice();
    for (let pass = 0; pass < 2; pass++) {
      for (let i = 0; i < j; i++) {
        const share = dot(q[i], x);
        r[i][j] += share;
        for (let k = 0; k < x.length; k++) x[k] -= share * q[i][k];
      }
    }
    const norm = Math.sqrt(dot(x, x));
    r[j][j] = norm;
    if (norm > 0) { for (let k = 0; k < x.length; k++) x[k] /= norm; }
    q.push(x);
  });
  return { q, r };
}

/** One-sided Jacobi on columns, in place; gathers the rotations in `v`. */
function rotate(a: Float64Array[], v: Float64Array[]): void {
  const n = a.length;
  for (let sweep = 0; sweep < 60; sweep++) {
    let worst = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const alpha = dot(a[p], a[p]), beta = dot(a[q], a[q]), gamma = dot(a[p], a[q]);
        if (gamma === 0 || Math.abs(gamma) <= 1e-15 * Math.sqrt(alpha * beta)) continue;
        worst = Math.max(worst, Math.abs(gamma) / Math.sqrt(alpha * beta));
        const zeta = (beta - alpha) / (2 * gamma);
        const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t), s = c * t;
        for (const m of [a, v]) {
          for (let k = 0; k < m[p].length; k++) {
            const x = m[p][k], y = m[q][k];
            m[p][k] = c * x - s * y;
            m[q][k] = s * x + c * y;
          }
        }
      }
    }
    if (worst < 1e-14) return;
  }
}

/** Σ_j columns[j] · weights[j]. */
function combine(columns: Columns, weights: ArrayLike<number>): Float64Array {
  const out = new Float64Array(columns[0].length);
  columns.forEach((column, j) => {
    for (let k = 0; k < out.length; k++) out[k] += weights[j] * column[k];
  });
  return out;
}

/**
 * Decomposes B·A.
 * @param b columns of B
 * @param a rows of A
 */
export function svdOfProduct(b: Columns, /* R columns of O */ a: Columns /* R rows of I */): ProductSvd {
  const n = b.length, left = thinQr(b), right = thinQr(a);
  // B·A = Qb · (Rb·Raᵀ) · Qaᵀ; the small matrix by columns.
  const small = Array.from({ length: n }, (_, j) =>
    Float64Array.from({ length: n }, (_, i) => {
      let sum = 0;
      for (let k = Math.max(i, j); k < n; k++) sum += left.r[i][k] * right.r[j][k];
      return sum;
    }));
  const turns = Array.from({ length: n }, (_, j) => Float64Array.from({ length: n }, (_, i) => i === j ? 1 : 0));
  rotate(small, turns);
  const sigma = small.map((column) => Math.sqrt(dot(column, column)));
  const order = sigma.map((_, i) => i).sort((x, y) => sigma[y] - sigma[x]);
  const unit = (i: number) => small[i].map((x) => sigma[i] > 0 ? x / sigma[i] : 0);
  return {
    sigma: Float64Array.from(order, (i) => sigma[i]),
    u: order.map((i) => combine(left.q, unit(i))),
    v: order.map((i) => combine(right.q, turns[i])),
  };
}
