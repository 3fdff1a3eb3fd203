/**
 * An optimiser's state in a new basis of an adapter's directions. First moments are means of gradients and follow them
 * exactly. Second moments are kept element by element, so a rotated one has to be estimated: with v̂ = mean² + variance
 * the mean part follows exactly from the first moment, and the variances of different directions are taken as
 * uncorrelated, v̂'ᵢ = Σⱼ c²ⱼᵢ·max(0, v̂ⱼ - m̂ⱼ²) + m̂'ᵢ². So |m̂'| ≤ √v̂' and no element moves further than its learning
 * rate; rotating v by the squares alone lacks that where directions share their gradients, which is what makes one of
 * them removable.
 * @module
 */
import type { Param } from "../nn/module.ts";
import { numel } from "../core/tensor.ts";
import type { Slab } from "../nn/params.ts";
import { changeBasis, type Square } from "./low_rank.ts";
import type { HostTensor } from "./state.ts";

/** The f32 values of a tensor on the host, in place. */
export function floatsOf(t: HostTensor): Float32Array {
  return new Float32Array(t.bytes.buffer, t.bytes.byteOffset, t.bytes.byteLength / 4);
}

/** Whether a parameter's directions are its rows (A [R,I]) or its columns (B [O,R]). */
export type Side = "rows" | "columns";

/** The first `count` directions of a matrix. */
export function takeDirections(x: Float32Array, shape: readonly number[], side: Side, count: number): Float64Array[] {
  const [rows, columns] = shape;
  return Array.from({ length: count }, (_, i) => {
    if (side === "rows") return Float64Array.from(x.subarray(i * columns, (i + 1) * columns));
    return Float64Array.from({ length: rows }, (_, o) => x[o * columns + i]);
  });
}

/** Writes directions from number `from` on. */
export function putDirections(
  x: Float32Array,
  shape: readonly number[],
  side: Side,
  directions: readonly Float64Array[],
  from = 0,
): void {
  const columns = shape[1];
  directions.forEach((d, k) => {
    const i = from + k;
    if (side === "rows") x.set(d, i * columns);
    else d.forEach((value, o) => x[o * columns + i] = value);
  });
}

/** Zero directions from number `from` on. */
export function clearDirections(x: Float32Array, shape: readonly number[], side: Side, from: number): void {
  const [rows, columns] = shape, count = (side === "rows" ? rows : columns) - from;
  const zero = new Float64Array(side === "rows" ? columns : rows);
  putDirections(x, shape, side, Array.from({ length: count }, () => zero), from);
}

/** One moment of one parameter: read as values, written back as it is stored. */
interface Plane {
  read(): Float32Array;
  write(x: Float32Array): void;
}

/** Elements of a block with one absmax (adamw8). */
const BLOCK = 256;

/** The optimiser's state of one step on the host. */
export class HostMoments {
  readonly #slabs = new Map<string, Slab>();
  readonly #host: ReadonlyMap<string, HostTensor>;
  /** By what m² is multiplied to stand beside v: both without their bias corrections. */
  readonly #meanSquare: number;

  /**
   * @param host what `snapshot.ts` read; changed in place
   * @param t number of the last step, for AdamW's bias corrections
   */
  constructor(slabs: readonly Slab[], host: ReadonlyMap<string, HostTensor>, betas: readonly number[], t: number) {
    for (const slab of slabs) for (const p of slab.params) this.#slabs.set(p.name, slab);
    this.#host = host;
    const [b1, b2] = betas.map(Math.fround);
    this.#meanSquare = (1 - b2 ** t) / (1 - b1 ** t) ** 2;
  }

  /** Takes the first `count` directions into the basis in which gradients become Σⱼ c[j,i]·gradientⱼ. */
  rotate(p: Param, side: Side, c: Square, count: number): void {
    const { shape } = p.value, m = this.#plane(p, "m"), v = this.#plane(p, "v"), squares = c.map((x) => x * x);
    this.#rotateFactored(p, side, squares, count);
    if (!m) return;
    const mean = m.read(), old = takeDirections(mean, shape, side, count), turned = changeBasis(old, c);
    putDirections(mean, shape, side, turned);
    m.write(mean);
    if (!v) return;
    const second = v.read(), k = this.#meanSquare;
    const variance = takeDirections(second, shape, side, count).map((x, j) =>
      x.map((value, n) => Math.max(0, value - k * old[j][n] ** 2))
    );
    const estimate = changeBasis(variance, squares);
    estimate.forEach((x, i) => x.forEach((value, n) => x[n] = value + k * turned[i][n] ** 2));
    putDirections(second, shape, side, estimate);
    v.write(second);
  }

  /** Forgets directions from number `from` on. Adafactor's factors stay: they never move what has no gradient. */
  clear(p: Param, side: Side, from: number): void {
    for (const plane of [this.#plane(p, "m"), this.#plane(p, "v")]) {
      const x = plane?.read();
      if (!x) continue;
      clearDirections(x, p.value.shape, side, from);
      plane!.write(x);
    }
  }

  /** Adafactor keeps the mean of g² of each direction: of independent ones it follows by squares. */
  #rotateFactored(p: Param, side: Side, squares: Square, count: number): void {
    const { group } = this.#slabs.get(p.name)!;
    const t = this.#host.get(`${group}.${side === "rows" ? "row" : "col"}.${p.name}`);
    if (!t) return;
    const values = floatsOf(t), old = Array.from(values.subarray(0, count), (x) => Float64Array.of(x));
    changeBasis(old, squares).forEach(([x], i) => values[i] = x);
  }

  #plane(p: Param, key: "m" | "v"): Plane | null {
    const slab = this.#slabs.get(p.name)!, get = (name: string) => this.#host.get(`${slab.group}.${name}`);
    const stored = get(key), from = (p.value.byteOffset - slab.value.byteOffset) / 4, n = numel(p.value);
    if (!stored) return null;
    const codes = get("codes"), absmax = get("absmax");
    if (codes && absmax) {
      const second = key === "v" ? 1 : 0, scales = floatsOf(absmax), blocks = scales.length / 2;
      return coded(
        stored.bytes.subarray(from, from + n),
        scales.subarray(second * blocks + from / BLOCK, (second + 1) * blocks),
        floatsOf(codes).subarray(256 * second, 256 * (second + 1)),
      );
    }
    const values = floatsOf(stored).subarray(from, from + n);
    return { read: () => values, write: () => {} };
  }
}

/** Moments of 8 bits (Backend.adamw8): code[byte]·absmax[block]. */
function coded(bytes: Uint8Array, absmax: Float32Array, codes: Float32Array): Plane {
  const read = () => Float32Array.from(bytes, (b, i) => codes[b] * absmax[Math.floor(i / BLOCK)]);
  const write = (x: Float32Array) => {
    for (let at = 0; at < x.length; at += BLOCK) {
      const block = x.subarray(at, at + BLOCK), most = block.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      absmax[at / BLOCK] = most;
      block.forEach((value, i) => bytes[at + i] = nearest(codes, most === 0 ? 0 : value / most));
    }
  };
  return { read, write };
}

/** Index of the code nearest to x; the lower of two equally near. */
function nearest(codes: Float32Array, x: number): number {
  let low = 0, high = codes.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (codes[middle] <= x) low = middle;
    else high = middle;
  }
  return x - codes[low] <= codes[high] - x ? low : high;
}
