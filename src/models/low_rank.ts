/**
 * The largest singular values of a matrix on the device, by block subspace iteration with Rayleigh-Ritz (Halko, Martinsson
 * & Tropp 2011): two products with the matrix a turn on the backend, the small algebra in f64 on the host.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { Random } from "../core/philox.ts";
import type { Tensor } from "../core/tensor.ts";

/** W ≈ Σ_j s[j]·u[j]·v[j]ᵀ; rows of u and v are orthonormal. */
export interface LowRank {
  readonly u: readonly Float64Array[] /* r × [O] */;
  readonly s: readonly number[];
  readonly v: readonly Float64Array[] /* r × [I] */;
}

/** Rows kept beyond the rank, so that close singular values converge. */
const OVERSAMPLING = 12;
/** A matrix as narrow as this is decomposed whole, which is exact. */
const WHOLE = 128;
/** ‖W·v - s·u‖ / s[0] at which a pair counts as found; f32 products leave 1e-6. */
const TOLERANCE = 2e-6;
/** Share of Σ s² a turn must still gain: where singular values lie close together their vectors hardly matter. */
const GAIN = 1e-7;
const MAX_TURNS = 40;

/** The `r` largest singular triplets of w, f32 or blocks. */
export async function topSingular(be: Backend, w: Tensor, /*[O,I]*/ r: number, seed = 0): Promise<LowRank> {
  const [O, I] = w.shape, k = rowsFor(r, Math.min(O, I)), random = new Random(seed);
  const place = (n: number): Tensor => ({ handle: be.alloc(k * n * 4), byteOffset: 0, dtype: "f32", shape: [k, n] });
  const x = place(I), y = place(O);
  const send = (t: Tensor, rows: Float64Array[]) => be.upload(t, Float32Array.from(rows.flatMap((row) => [...row])));
  const fetch = async (t: Tensor): Promise<Float64Array[]> => {
    const flat = new Float32Array(k * t.shape[1]);
    await be.download(t, flat);
    return Array.from({ length: k }, (_, j) => Float64Array.from(flat.subarray(j * t.shape[1], (j + 1) * t.shape[1])));
  };
  let v = orthonormal(Array.from({ length: k }, () => Float64Array.from({ length: I }, () => random.normal())));
  let u: Float64Array[] = [], s: number[] = [], before = 0;
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    send(x, v);
    be.matmul(y, x, w, null, { transB: true });
    const wv = await fetch(y);
    if (turn > 0 && residual(wv, u, s, r) < TOLERANCE) break;
    const q = orthonormal(wv);
    send(y, q);
    be.matmul(x, y, w, null, {});
    const z = await fetch(x), { values, vectors } = symmetricEigen(gram(z));
    s = values.map((x) => Math.sqrt(Math.max(0, x)));
    u = vectors.map((e) => combine(e, q));
    v = vectors.map((e, j) => combine(e, z).map((x) => x / (s[j] || 1)));
    v = orthonormal(v);
    const energy = s.slice(0, r).reduce((sum, x) => sum + x * x, 0);
    if (energy - before < GAIN * energy) break;
    before = energy;
  }
  for (const t of [x, y]) be.free(t.handle);
  return { u: u.slice(0, r), s: s.slice(0, r), v: v.slice(0, r) };
}

/** Rows of the subspace. */
const rowsFor = (r: number, narrow: number): number => narrow <= WHOLE ? narrow : Math.min(r + OVERSAMPLING, narrow);

/** Largest ‖W·v - s·u‖ of the first r, over s[0]. */
function residual(wv: Float64Array[], u: Float64Array[], s: number[], r: number): number {
  const norms = u.slice(0, r).map((row, j) => Math.hypot(...row.map((x, i) => wv[j][i] - s[j] * x)));
  return Math.max(...norms) / (s[0] || 1);
}

const dot = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/** Gram-Schmidt, twice (Kahan's "twice is enough"). */
function orthonormal(rows: Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const row of rows) {
    const x = row.slice();
    for (let pass = 0; pass < 2; pass++) {
      for (const q of out) {
        const c = dot(q, x);
        for (let i = 0; i < x.length; i++) x[i] -= c * q[i];
      }
    }
    const norm = Math.sqrt(dot(x, x)) || 1;
    out.push(x.map((v) => v / norm));
  }
  return out;
}

const gram = (rows: Float64Array[]): Float64Array[] => rows.map((a) => Float64Array.from(rows, (b) => dot(a, b)));

/** Σ_i c[i]·rows[i]. */
function combine(c: Float64Array, rows: Float64Array[]): Float64Array {
  const out = new Float64Array(rows[0].length);
  rows.forEach((row, k) => {
    for (let i = 0; i < out.length; i++) out[i] += c[k] * row[i];
  });
  return out;
}

/** Eigenvalues, largest first, and eigenvectors of a small symmetric matrix, by Jacobi's rotations. */
export function symmetricEigen(m: readonly Float64Array[]): { values: number[]; vectors: Float64Array[] } {
  const n = m.length, a = m.map((row) => row.slice());
  const e = a.map((_, i) => Float64Array.from({ length: n }, (_, j) => i === j ? 1 : 0));
  const scale = Math.sqrt(a.reduce((s, row) => s + dot(row, row), 0)) || 1;
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off = Math.max(off, Math.abs(a[p][q]));
    if (off < 1e-15 * scale) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(a, e, p, q);
  }
  const order = a.map((_, i) => i).sort((i, j) => a[j][j] - a[i][i]);
  return { values: order.map((i) => a[i][i]), vectors: order.map((i) => e[i]) };
}

/** One rotation that makes a[p][q] zero; the rows of e turn with it. */
function rotate(a: Float64Array[], e: Float64Array[], p: number, q: number): void {
  if (a[p][q] === 0) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1)),
    c = 1 / Math.sqrt(t * t + 1),
    s = t * c;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i][p], a[i][q]];
    a[i][p] = c * x - s * y;
    a[i][q] = s * x + c * y;
  }
  for (let i = 0; i < a.length; i++) {
    const [x, y, ex, ey] = [a[p][i], a[q][i], e[p][i], e[q][i]];
    a[p][i] = c * x - s * y;
    a[q][i] = s * x + c * y;
    e[p][i] = c * ex - s * ey;
    e[q][i] = s * ex + c * ey;
  }
}
