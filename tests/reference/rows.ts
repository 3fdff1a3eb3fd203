/**
 * Operations on one row of features or logits, by their formulas.
 * @module
 */
import type { Act, LossOpts, NormOpts } from "../../src/core/backend.ts";

/** Mean and 1/std of a row; RMS norm's mean is 0. */
export function statistics(x: Float64Array, o: NormOpts): { mean: number; rstd: number } {
  let mean = 0, square = 0;
  if (o.kind === "layer") {
    for (const v of x) mean += v;
    mean /= x.length;
  }
  for (const v of x) square += (v - mean) ** 2;
  return { mean, rstd: 1 / Math.sqrt(square / x.length + o.eps) };
}

/** d(loss)/dx of a row of norm: rstd · (g - [mean g] - x̂ · mean(g·x̂)) with g = dOut · w; the bracket for layer norm. */
export function normRowBwd(
  dOut: Float64Array,
  x: Float64Array,
  w: (j: number) => number,
  { mean, rstd }: { mean: number; rstd: number },
  kind: NormOpts["kind"],
): Float64Array {
  let g = 0, gx = 0;
  for (let j = 0; j < x.length; j++) {
    g += dOut[j] * w(j) / x.length;
    gx += dOut[j] * w(j) * (x[j] - mean) * rstd / x.length;
  }
  return x.map((v, j) => rstd * (dOut[j] * w(j) - (kind === "layer" ? g : 0) - (v - mean) * rstd * gx));
}

/** The error function: the series for small |x|, the continued fraction for large, both to f64 precision. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    // Σ (-1)^n x^(2n+1) / (n! (2n+1)) · 2/√π
    let term = x, sum = x;
    for (let n = 1; n < 80; n++) {
      term *= -x * x / n;
      sum += term / (2 * n + 1);
    }
    return sum * 2 / Math.sqrt(Math.PI);
  }
  // erfc(a) = e^(-a²)/√π · 1/(a + (1/2)/(a + 1/(a + (3/2)/(a + …))))
  let f = a;
  for (let n = 60; n > 0; n--) f = a + (n / 2) / f;
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / f);
}

/** An activation and its derivative at x. */
export function activate(x: number, act: Act): { y: number; dy: number } {
  if (act === "silu") {
    const s = 1 / (1 + Math.exp(-x));
    return { y: x * s, dy: s * (1 + x * (1 - s)) };
  }
  if (act === "gelu") {
    const cdf = 0.5 * (1 + erf(x / Math.SQRT2));
    return { y: x * cdf, dy: cdf + x * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) };
  }
  // Hendrycks & Gimpel 2016: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
  const c = Math.sqrt(2 / Math.PI), t = Math.tanh(c * (x + 0.044715 * x ** 3));
  return { y: 0.5 * x * (1 + t), dy: 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x) };
}

/**
 * Loss of one row; `z` becomes weight · d loss / d logits.
 * loss = lse - (1-ε)·z[target] - ε·mean(z) + zLoss·lse², the label-smoothing form of torch's cross_entropy.
 */
export function lossRow(z: Float64Array, target: number, weight: number, o: LossOpts): number {
  const V = z.length;
  if (weight === 0) {
    z.fill(0);
    return 0;
  }
  if (!(target >= 0 && target < V)) {
    throw new RangeError(`Cannot score target ${target}: the vocabulary has ${V} tokens`);
  }
  const tanh = o.softcap > 0 ? z.map((v) => Math.tanh(v / o.softcap)) : null;
  if (tanh) { for (let j = 0; j < V; j++) z[j] = o.softcap * tanh[j]; }
  let max = -Infinity, sum = 0, mean = 0;
  for (const v of z) max = Math.max(max, v);
  for (const v of z) {
    sum += Math.exp(v - max);
    mean += v / V;
  }
  const lse = max + Math.log(sum), eps = o.smoothing;
  const loss = lse - (1 - eps) * z[target] - eps * mean + o.zLoss * lse * lse;
  for (let j = 0; j < V; j++) {
    const p = Math.exp(z[j] - lse), hit = j === target ? 1 - eps : 0;
    z[j] = weight * (p * (1 + 2 * o.zLoss * lse) - hit - eps / V) * (tanh ? 1 - tanh[j] ** 2 : 1);
  }
  return loss;
}
