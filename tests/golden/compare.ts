/** How far from the recorded answers: relative norms, relative curves, tokens. */

/** ‖a - b‖ / ‖b‖. */
export function relativeNorm(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let d = 0, n = 0;
  for (let i = 0; i < b.length; i++) {
    d += (a[i] - b[i]) ** 2;
    n += b[i] ** 2;
  }
  return Math.sqrt(d) / Math.max(Math.sqrt(n), 1e-12);
}

/** Half a unit in the last place of f32 numbers near 1. */
const HALF_ULP = 2 ** -24;

/**
 * Largest |a - b| / |b| over a curve.
 * @param losses transformers makes the loss, and its gradient, in f32 from softmax probabilities whatever the model's type;
 * where a loss is small those lie near 1, and what is recorded resolves it to 2^-24 of it only. That much is not counted:
 * 2e-8 at a loss of 3, 6e-4 at a loss of 1e-4.
 */
export function relativeCurve(a: ArrayLike<number>, b: ArrayLike<number>, losses?: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  for (let i = 0; i < b.length; i++) {
    const relative = Math.abs(a[i] - b[i]) / Math.max(Math.abs(b[i]), 1e-9);
    worst = Math.max(worst, relative - (losses ? HALF_ULP / losses[i] : 0));
  }
  return worst;
}

const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));

/**
 * The worst relative norm over tensors by name; a missing one counts as infinitely far. A tensor that is under 1e-7 of the
 * largest one on both sides is rounding alone (the gradient of k's bias in a layer without rope is zero) and does not count.
 */
export function worstNorm(
  found: ReadonlyMap<string, ArrayLike<number>>,
  wanted: ReadonlyMap<string, ArrayLike<number>>,
): { worst: number; name: string } {
  const rounding = 1e-7 * Math.max(0, ...Array.from(wanted.values(), norm));
  let worst = 0, name = "";
  for (const key of new Set([...wanted.keys(), ...found.keys()])) {
    const a = found.get(key), b = wanted.get(key);
    if (a && b && a.length === b.length && norm(a) < rounding && norm(b) < rounding) continue;
    const r = a && b ? relativeNorm(a, b) : Infinity;
    if (Number.isNaN(r)) return { worst: r, name: key };
    if (r > worst) [worst, name] = [r, key];
  }
  return { worst, name };
}

/** Where two token lists part, counting only up to the first position whose recorded margin is under `least`. */
export function firstDifference(
  found: ArrayLike<number>,
  wanted: ArrayLike<number>,
  margins: ArrayLike<number>,
  least: number,
): { at: number | null; compared: number } {
  for (let i = 0; i < wanted.length; i++) {
    if (margins[i] < least) return { at: null, compared: i };
    if (found[i] !== wanted[i]) return { at: i, compared: i };
  }
  return { at: null, compared: wanted.length };
}

/** One quantity held against its bound. */
export interface Check {
  readonly what: string;
  readonly value: number;
  /** Infinity: shown only. */
  readonly bound: number;
  readonly note?: string;
}

/** Whether a check holds; NaN never does. */
export const holds = (c: Check): boolean => c.value <= c.bound;
