/**
 * Lower ranks where little is learnt. A pair B·A is cut into singular directions; each is worth what the loss would lose
 * without it, by the optimiser's own moments: |σ·g| + ½·σ²·f, with g the averaged gradient along the direction and f its
 * second moment, which stands for the curvature (LeCun et al. 1990, with the empirical Fisher; the first term alone is
 * AdaLoRA's sensitivity, Zhang et al. 2023). The directions worth most for their parameters are kept, over all layers
 * together. A pair that is cut computes what its kept directions computed, has orthogonal rows again, and keeps its
 * moments, which follow the change of basis.
 * @module
 */
import { type Columns, type ProductSvd, svdOfProduct } from "./svd.ts";

/** One adapted linear with its first and second moments (bias-corrected), all row-major f32. */
export interface Pair {
  readonly module: string;
  readonly rank: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly a: PairSide /* [R,I] */;
  readonly b: PairSide /* [O,R] */;
}

/** A matrix of a pair. */
export interface PairSide {
  readonly value: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
}

/** A pair in singular directions, with what each is worth. */
export interface Analysis {
  readonly pair: Pair;
  readonly svd: ProductSvd;
  readonly worth: Float64Array /* [R] */;
  /** Directions that exist: those of singular value 0 cannot be kept. */
  readonly effective: number;
}

/** Rows of a row-major matrix. */
function rows(x: Float32Array, count: number, length: number): Columns {
  return Array.from({ length: count }, (_, r) => Float64Array.from(x.subarray(r * length, (r + 1) * length)));
}

/** Columns of a row-major matrix. */
function columns(x: Float32Array, count: number, length: number): Columns {
  return Array.from({ length: count }, (_, c) => Float64Array.from({ length }, (_, r) => x[r * count + c]));
}

const dot = (x: Float64Array, y: Float64Array): number => x.reduce((sum, v, i) => sum + v * y[i], 0);

/** Singular directions of a pair and their worth. */
export function analyse(pair: Pair): Analysis {
  const { rank, inputs, outputs, a, b } = pair, aRows = rows(a.value, rank, inputs);
  const svd = svdOfProduct(columns(b.value, rank, outputs), aRows);
  const effective = svd.sigma.filter((s) => s > 1e-6 * svd.sigma[0]).length;
  const [mb, vb] = [b.m, b.v].map((x) => columns(x, rank, outputs));
  const inverse = solver(aRows);
  const worth = svd.sigma.map((sigma, i) => {
    if (i >= effective) return 0;
    // dB = s·G·Aᵀ, so the gradient along u·vᵀ is uᵀ·dB·c/s with v = Aᵀ·c; the scale s cancels against s·σ.
    const c = inverse(aRows.map((row) => dot(row, svd.v[i]))), u = svd.u[i];
    let gradient = 0, curvature = 0;
    for (let j = 0; j < rank; j++) {
      for (let o = 0; o < outputs; o++) {
        gradient += u[o] * mb[j][o] * c[j];
        curvature += u[o] * u[o] * vb[j][o] * c[j] * c[j];
      }
    }
    return Math.abs(sigma * gradient) + 0.5 * sigma * sigma * curvature;
  });
  return { pair, svd, worth, effective };
}

/** Solves (A·Aᵀ)·c = x by Cholesky; A's rows are independent but for rounding, which a trace of ridge guards. */
function solver(aRows: Columns): (x: readonly number[]) => Float64Array {
  const n = aRows.length, gram = aRows.map((x) => Float64Array.from(aRows, (y) => dot(x, y)));
  const ridge = 1e-10 * gram.reduce((sum, row, i) => sum + row[i], 0) / n;
  const l = gram.map((row) => row.slice());
  for (let j = 0; j < n; j++) {
    l[j][j] = Math.sqrt(l[j][j] + ridge - l[j].subarray(0, j).reduce((sum, x) => sum + x * x, 0));
    for (let i = j + 1; i < n; i++) {
      let sum = l[i][j];
      for (let k = 0; k < j; k++) sum -= l[i][k] * l[j][k];
      l[i][j] = sum / l[j][j];
    }
  }
  return (x) => {
    const y = Float64Array.from(x);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < i; k++) y[i] -= l[i][k] * y[k];
      y[i] /= l[i][i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) y[i] -= l[k][i] * y[k];
      y[i] /= l[i][i];
    }
    return y;
  };
}

/**
 * Ranks that keep the worthiest directions for at most `budget` parameters; every pair keeps one.
 * @returns by module
 */
export function allotRanks(all: readonly Analysis[], budget: number): Map<string, number> {
  const cost = ({ pair }: Analysis) => pair.inputs + pair.outputs;
  const ranks = new Map(all.map((x) => [x.pair.module, 1]));
  let left = budget - all.reduce((sum, x) => sum + cost(x), 0);
  // Directions come largest first, so a pair's next is judged before those after it even where worth is not in order.
  const next = all.flatMap((x) => {
    const best = Float64Array.from(x.worth);
    for (let i = best.length - 2; i >= 0; i--) best[i] = Math.max(best[i], best[i + 1]);
    return Array.from({ length: Math.max(0, x.effective - 1) }, (_, i) => ({ x, value: best[i + 1] / cost(x) }));
  }).sort((p, q) => q.value - p.value);
  for (const { x } of next) {
    if (cost(x) > left) continue;
    left -= cost(x);
    ranks.set(x.pair.module, ranks.get(x.pair.module)! + 1);
  }
  return ranks;
}

/** The pair with its first `rank` directions. Rows of A are orthogonal and as long as A's were on average. */
export function cutPair({ pair, svd, effective }: Analysis, rank: number): Pair {
  const { inputs: I, outputs: O, rank: R, a, b } = pair;
  const length = Math.sqrt(a.value.reduce((sum, x) => sum + x * x, 0) / R);
  const kept = Math.min(rank, Math.max(1, effective));
  const aRows = rows(a.value, R, I), bColumns = columns(b.value, R, O);
  const out = { value: [new Float32Array(kept * I), new Float32Array(O * kept)] };
  // A' = toA·A and B' = B·toB; gradients, and so moments, go the other way round.
  const toA: Float64Array[] = [], toB: Float64Array[] = [];
  for (let k = 0; k < kept; k++) {
    const sigma = svd.sigma[k], exists = k < effective;
    toA.push(
      Float64Array.from(bColumns, (column, j) => exists ? length / sigma * dot(column, svd.u[k]) : Number(j === k)),
    );
    toB.push(Float64Array.from(aRows, (row, j) => exists ? dot(row, svd.v[k]) / length : Number(j === k)));
    for (let i = 0; i < I; i++) out.value[0][k * I + i] = exists ? length * svd.v[k][i] : aRows[k][i];
    for (let o = 0; o < O; o++) out.value[1][o * kept + k] = exists ? sigma / length * svd.u[k][o] : bColumns[k][o];
  }
  const squares = (x: readonly Float64Array[]) => x.map((row) => row.map((v) => v * v));
  return {
    ...{ module: pair.module, rank: kept, inputs: I, outputs: O },
    a: { value: out.value[0], m: mixRows(a.m, toB, I), v: mixRows(a.v, squares(toB), I) },
    b: { value: out.value[1], m: mixColumns(b.m, toA, O, R), v: mixColumns(b.v, squares(toA), O, R) },
  };
}

/** Row k = Σ_j weights[k][j] · row j. */
function mixRows(x: Float32Array, weights: readonly Float64Array[], length: number): Float32Array {
  const out = new Float32Array(weights.length * length);
  weights.forEach((w, k) => {
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let j = 0; j < w.length; j++) sum += w[j] * x[j * length + i];
      out[k * length + i] = sum;
    }
  });
  return out;
}

/** Column k = Σ_j weights[k][j] · column j. */
function mixColumns(x: Float32Array, weights: readonly Float64Array[], count: number, width: number): Float32Array {
  const out = new Float32Array(count * weights.length);
  for (let o = 0; o < count; o++) {
    weights.forEach((w, k) => {
      let sum = 0;
      for (let j = 0; j < width; j++) sum += w[j] * x[o * width + j];
      out[o * weights.length + k] = sum;
    });
  }
  return out;
}
