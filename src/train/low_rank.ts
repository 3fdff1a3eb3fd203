/**
 * The singular values of B·A without ever forming it: thin QR of both factors, then a one-sided Jacobi of the R×R middle
 * (Golub & Van Loan, Matrix Computations, 4th ed., §5.2 and §8.6.3), all in f64. What comes out is a change of basis of
 * the R directions, so that whatever else lives in that basis (gradients, moments) can follow.
 * @module
 */

/** R vectors of one length: rows of A [R,I], or columns of B [O,R]. */
export type Vectors = readonly Float64Array[];

/** A square matrix [R,R], row-major. */
export type Square = Float64Array;

/** B·A in the basis of its singular vectors, gauge: rows of A orthogonal and of equal length. */
export interface SingularBasis {
  /** B' = B·T, A = T·A'. Gradients of A follow it: dA' = Tᵀ·dA. */
  readonly t: Square;
  /** S = T⁻ᵀ: A' = Sᵀ·A. Gradients of B follow it: dB' = dB·S. */
  readonly s: Square;
  /** Singular values of B·A, falling. */
  readonly sigma: Float64Array;
}

/** x'_i = Σ_j m[j,i]·x_j: vectors in a new basis. */
export function changeBasis(x: Vectors, m: Square): Float64Array[] {
  const r = x.length;
  return Array.from({ length: r }, (_, i) => {
    const out = new Float64Array(x[0].length);
    for (let j = 0; j < r; j++) {
      const f = m[j * r + i], from = x[j];
      if (f !== 0) { for (let n = 0; n < out.length; n++) out[n] += f * from[n]; }
    }
    return out;
  });
}

/** The upper triangle of X = Q·U for X with these columns, by Householder reflections; columns may be shorter than many. */
export function triangle(columns: Vectors): Square {
  const r = columns.length, n = Math.max(columns[0].length, r), out = new Float64Array(r * r);
  const x = columns.map((c) => {
    const padded = new Float64Array(n);
    padded.set(c);
    return padded;
  });
  for (let j = 0; j < r; j++) {
    const v = x[j];
    for (let i = 0; i < j; i++) out[i * r + j] = v[i];
    let square = 0;
    for (let i = j; i < n; i++) square += v[i] * v[i];
    const length = Math.sqrt(square), diagonal = v[j] > 0 ? -length : length;
    out[j * r + j] = diagonal;
    if (length === 0) continue;
    v[j] -= diagonal; // v is the reflection's axis from here on
    const half = diagonal * (diagonal - (v[j] + diagonal)); // ‖v‖²/2
    for (let k = j + 1; k < r; k++) {
      let dot = 0;
      for (let i = j; i < n; i++) dot += v[i] * x[k][i];
      const f = dot / half;
      for (let i = j; i < n; i++) x[k][i] -= f * v[i];
    }
  }
  return out;
}

/** Relative size of a dot product that counts as zero: rounding of f64. */
const ORTHOGONAL = 1e-15;
/** Sweeps are six to ten in practice; the bound only keeps NaN from looping. */
const SWEEPS = 60;

/** Rotates the columns of `w` until they are orthogonal; the rotation as columns V, so that W·V = U·Σ. */
function jacobi(w: readonly Float64Array[]): Float64Array[] {
  const r = w.length;
  const v = Array.from({ length: r }, (_, i) => Float64Array.from({ length: r }, (_, j) => i === j ? 1 : 0));
  for (let sweep = 0, turned = true; turned && sweep < SWEEPS; sweep++) {
    turned = false;
    for (let p = 0; p < r; p++) {
      for (let q = p + 1; q < r; q++) {
        const a = dot(w[p], w[p]), b = dot(w[q], w[q]), c = dot(w[p], w[q]);
        if (!(Math.abs(c) > ORTHOGONAL * Math.sqrt(a) * Math.sqrt(b))) continue;
        turned = true;
        const zeta = (b - a) / (2 * c), sign = zeta < 0 ? -1 : 1;
        const tan = sign / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta)), cos = 1 / Math.sqrt(1 + tan * tan);
        rotate(w[p], w[q], cos, cos * tan);
        rotate(v[p], v[q], cos, cos * tan);
      }
    }
  }
  return v;
}

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

function rotate(x: Float64Array, y: Float64Array, cos: number, sin: number): void {
  for (let i = 0; i < x.length; i++) {
    const xi = x[i], yi = y[i];
    x[i] = cos * xi - sin * yi;
    y[i] = sin * xi + cos * yi;
  }
}

/** Smallest share of the greatest diagonal entry of A's triangle at which its rows count as independent. */
const INDEPENDENT = 1e-6;

/**
 * The singular basis of B·A. With A = Uₐᵀ·Qᵀ and B·Uₐᵀ·V = (left vectors)·Σ, the basis is A' = c·Vᵀ·Qᵀ and
 * B' = B·Uₐᵀ·V / c, where c is the root mean square length of A's rows: A stays as large as it was and B carries the
 * singular values, as in an adapter that starts with B = 0. So T is near a rotation as long as A is near its start, and
 * an optimiser's step sizes, which are not the same in every gauge, hardly change.
 * @param a rows of A, at least as long as they are many
 * @param b columns of B
 * @returns null when A's rows are not independent: then there is no way back from A' to A
 */
export function singularBasis(a: Vectors, b: Vectors): SingularBasis | null {
  const r = a.length, ua = triangle(a), ub = triangle(b);
  const diagonal = Array.from({ length: r }, (_, i) => Math.abs(ua[i * r + i]));
  if (!(Math.min(...diagonal) > INDEPENDENT * Math.max(...diagonal))) return null;
  // Columns of the middle Ub·Uaᵀ.
  const w = Array.from({ length: r }, (_, j) => {
    const column = new Float64Array(r);
    for (let i = 0; i < r; i++) for (let k = Math.max(i, j); k < r; k++) column[i] += ub[i * r + k] * ua[j * r + k];
    return column;
  });
  const v = jacobi(w), length = w.map((x) => Math.sqrt(dot(x, x)));
  const order = length.map((_, i) => i).sort((i, j) => length[j] - length[i] || i - j);
  const c = Math.sqrt(dot(ua, ua) / r), t = new Float64Array(r * r), s = new Float64Array(r * r);
  order.forEach((from, to) => {
    for (let i = 0; i < r; i++) {
      let sum = 0;
      for (let k = 0; k <= i; k++) sum += ua[k * r + i] * v[from][k];
      t[i * r + to] = sum / c;
    }
    for (let i = r - 1; i >= 0; i--) { // Ua·S = c·V, from below
      let sum = c * v[from][i];
      for (let k = i + 1; k < r; k++) sum -= ua[i * r + k] * s[k * r + to];
      s[i * r + to] = sum / ua[i * r + i];
    }
  });
  return { t, s, sigma: Float64Array.from(order, (i) => length[i]) };
}

/** The same basis with its directions in another order. */
export function reorder({ t, s, sigma }: SingularBasis, order: readonly number[]): SingularBasis {
  const r = order.length, pick = (m: Square) => m.map((_, at) => m[at - at % r + order[at % r]]);
  return { t: pick(t), s: pick(s), sigma: Float64Array.from(order, (i) => sigma[i]) };
}
