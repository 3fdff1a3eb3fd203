/**
 * The reference backend's memory. Every slab has two sides: an f64 side, where "f32" tensors live so that finite
 * differences work at 1e-9, and a byte side for every other type. An f32 tensor read as another type is not coherent,
 * which no op does.
 * @module
 */
import { DTYPES } from "../../src/core/dtype.ts";
import { BackendError, MemoryError, ShapeError } from "../../src/core/errors.ts";
import { byteLength, type Handle, numel, type Tensor } from "../../src/core/tensor.ts";
import { decode, encode } from "./codec.ts";

interface Slab {
  readonly bytes: number;
  /** NaN until written, as far as it was ever looked at: reading what was never written shows. */
  wide: Float64Array | null;
  /** Elements of `wide` that were looked at; behind them it is untouched memory. */
  seen: number;
  raw: Uint8Array | null;
  /** Decoded weights by offset and type, dropped at any write to the byte side. */
  readonly decoded: Map<string, Float64Array>;
}

/** Slabs by handle. */
export class Memory {
  readonly #slabs = new Map<Handle, Slab>();
  #next = 1;
  active = 0;
  peak = 0;

  /** Bytes that may be in use at once. */
  readonly limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  alloc(bytes: number): Handle {
    if (this.active + bytes > this.limit) {
      const left = this.limit - this.active;
      throw new MemoryError(`Cannot allocate ${bytes} bytes: ${left} of ${this.limit} are left`, bytes, left);
    }
    this.active += bytes;
    this.peak = Math.max(this.peak, this.active);
    this.#slabs.set(this.#next, { bytes, wide: null, seen: 0, raw: null, decoded: new Map() });
    return this.#next++;
  }

  free(h: Handle): void {
    const slab = this.#slabs.get(h);
    if (!slab) throw new BackendError(`Cannot free handle ${h}: it was freed or never made`, "free");
    this.active -= slab.bytes;
    this.#slabs.delete(h);
  }

  clear(): void {
    this.#slabs.clear();
    this.active = 0;
  }

  /** The slab under `t`, after a check that all of `t` lies in it. */
  #slab(t: Tensor): Slab {
    const slab = this.#slabs.get(t.handle);
    if (!slab) throw new BackendError(`Cannot use handle ${t.handle}: it was freed or never made`);
    const end = t.byteOffset + byteLength(t);
    if (end > slab.bytes) {
      throw new ShapeError(
        `Cannot use ${t.dtype} [${t.shape}] at byte ${t.byteOffset}: it ends at ${end} of ${slab.bytes}`,
      );
    }
    const align = Math.min(DTYPES[t.dtype].bytes, 4);
    if (DTYPES[t.dtype].block === 1 && t.byteOffset % align !== 0) {
      throw new ShapeError(`Cannot use ${t.dtype} at byte ${t.byteOffset}: it is no multiple of ${align}`);
    }
    return slab;
  }

  /** The bytes of a tensor that is not f32. */
  bytes(t: Tensor): Uint8Array {
    const slab = this.#slab(t);
    slab.raw ??= new Uint8Array(slab.bytes);
    return slab.raw.subarray(t.byteOffset, t.byteOffset + byteLength(t));
  }

  /** Elements of an f32 tensor where they lie. */
  #wide(t: Tensor): Float64Array {
    const slab = this.#slab(t);
    slab.wide ??= new Float64Array(Math.ceil(slab.bytes / 4));
    const from = t.byteOffset / 4, end = from + numel(t);
    if (end > slab.seen) {
      slab.wide.fill(NaN, slab.seen, end);
      slab.seen = end;
    }
    return slab.wide.subarray(from, end);
  }

  /** Elements as f64, to be read only: where they lie for f32, decoded otherwise. */
  read(t: Tensor): Float64Array {
    if (t.dtype === "f32") return this.#wide(t);
    const slab = this.#slab(t), key = `${t.dtype} ${t.byteOffset} ${numel(t)}`;
    let values = slab.decoded.get(key);
    if (!values) {
      values = decode(t.dtype, this.bytes(t), numel(t));
      slab.decoded.set(key, values);
    }
    return values;
  }

  /** An i32 tensor where it lies. */
  ints(t: Tensor): Int32Array {
    const b = this.bytes(t);
    return new Int32Array(b.buffer, b.byteOffset, b.byteLength / 4);
  }

  /** Runs `work` on the elements, to be read and written; stores them back in the tensor's type. */
  edit(t: Tensor, work: (x: Float64Array) => void): void {
    if (t.dtype === "f32") return work(this.#wide(t));
    const x = this.read(t).slice();
    work(x);
    this.store(t, x);
  }

  /** Elements of `x` into `t`, rounded to its type. */
  store(t: Tensor, x: ArrayLike<number>): void {
    if (t.dtype === "f32") return this.#wide(t).set(x);
    this.#slab(t).decoded.clear();
    encode(t.dtype, x, this.bytes(t));
  }

  /**
   * Float64Array or Float32Array of as many elements go to an f32 tensor as values; everything else is bytes.
   * @throws {ShapeError} when the sizes differ
   */
  upload(t: Tensor, src: ArrayBufferView): void {
    if (t.dtype === "f32" && src instanceof Float64Array) {
      same(t, src.length, numel(t), "elements");
      return this.#wide(t).set(src);
    }
    same(t, src.byteLength, byteLength(t), "bytes");
    const bytes = new Uint8Array(src.buffer, src.byteOffset, src.byteLength);
    if (t.dtype === "f32") return this.#wide(t).set(new Float32Array(bytes.slice().buffer));
    this.#slab(t).decoded.clear();
    this.bytes(t).set(bytes);
  }

  /** The mirror of `upload`. */
  download(t: Tensor, dst: ArrayBufferView): void {
    if (t.dtype === "f32" && dst instanceof Float64Array) {
      same(t, dst.length, numel(t), "elements");
      return dst.set(this.#wide(t));
    }
    same(t, dst.byteLength, byteLength(t), "bytes");
    const src = t.dtype === "f32" ? new Uint8Array(Float32Array.from(this.#wide(t)).buffer) : this.bytes(t);
    new Uint8Array(dst.buffer, dst.byteOffset, dst.byteLength).set(src);
  }
}

function same(t: Tensor, have: number, want: number, unit: string): void {
  if (have !== want) {
    throw new ShapeError(`Cannot transfer ${t.dtype} [${t.shape}]: the array has ${have} ${unit}, the tensor ${want}`);
  }
}
