/** Adapters whose ranks were lowered in training: directions that are zero in both factors are left out of what is saved. @module */
import { type Adapter, type AdapterSettings, type FloatTensor, scaleOf } from "./adapter.ts";

const A = ".lora_A.weight", B = ".lora_B.weight";

/** Directions of a pair of which not everything is zero. B = 0 alone is an untrained direction, which stays. */
function liveDirections(a: FloatTensor, /*[R,I]*/ b: FloatTensor /*[O,R]*/): number[] {
  const [r, inputs] = a.shape, [outputs] = b.shape;
  const lives = (i: number): boolean => {
    if (a.values.subarray(i * inputs, (i + 1) * inputs).some((x) => x !== 0)) return true;
    for (let o = 0; o < outputs; o++) if (b.values[o * r + i] !== 0) return true;
    return false;
  };
  return Array.from({ length: r }, (_, i) => i).filter(lives);
}

/** An alpha that gives `scale` at `rank`, to the last bit where an f64 does. */
function alphaOf(scale: number, rank: number, rslora: boolean): number {
  const root = rslora ? Math.sqrt(rank) : rank, near = scale * root;
  // A quotient of a rounded product can be off by one: the neighbours are tried too.
  for (const x of [near, near * (1 + 2 ** -52), near * (1 - 2 ** -52)]) if (x / root === scale) return x;
  return near;
}

/** Columns `keep` of b [O,R]. */
function columns(b: FloatTensor, keep: readonly number[]): FloatTensor {
  const [outputs, r] = b.shape, values = new Float32Array(outputs * keep.length);
  for (let o = 0; o < outputs; o++) keep.forEach((i, to) => values[o * keep.length + to] = b.values[o * r + i]);
  return { shape: [outputs, keep.length], values };
}

/** Rows `keep` of a [R,I]. */
function rows(a: FloatTensor, keep: readonly number[]): FloatTensor {
  const [, inputs] = a.shape, values = new Float32Array(keep.length * inputs);
  keep.forEach((i, to) => values.set(a.values.subarray(i * inputs, (i + 1) * inputs), to * inputs));
  return { shape: [keep.length, inputs], values };
}

/**
 * The same function with as few directions as there are: each module that lost some gets its own rank and an alpha that
 * keeps its scale (alpha / r, or alpha / √r), under its whole name in rank_pattern and alpha_pattern, as peft reads them.
 * A module keeps one direction at least, since peft knows no rank 0.
 * @returns `adapter` itself when there is nothing to leave out
 */
export function withoutZeroDirections(adapter: Adapter): Adapter {
  const tensors = new Map(adapter.tensors), { settings } = adapter;
  const ranks: Record<string, number> = {}, alphas: Record<string, number> = {};
  for (const [name, a] of adapter.tensors) {
    const module = name.endsWith(A) ? name.slice(0, -A.length) : null, b = tensors.get(`${module}${B}`);
    if (module === null || !b) continue;
    const live = liveDirections(a, b), keep = live.length ? live : [0];
    if (keep.length === a.shape[0]) continue;
    tensors.set(name, rows(a, keep)).set(`${module}${B}`, columns(b, keep));
    ranks[module] = keep.length;
    alphas[module] = alphaOf(scaleOf(settings, module), keep.length, settings.rslora);
  }
  if (Object.keys(ranks).length === 0) return adapter;
  const lowered: AdapterSettings = {
    ...settings,
    rankPattern: { ...ranks, ...without(settings.rankPattern, ranks) }, // the first that matches counts: whole names
    alphaPattern: { ...alphas, ...without(settings.alphaPattern, alphas) },
  };
  return { settings: lowered, tensors };
}

/** The entries whose key is none of `taken`. */
function without(patterns: Readonly<Record<string, number>>, taken: object): Record<string, number> {
  return Object.fromEntries(Object.entries(patterns).filter(([key]) => !(key in taken)));
}
