/**
 * The one linear memory: an allocator in TypeScript over a shared WebAssembly.Memory that grows. Handles are numbers into
 * a table here, never addresses, and are not used twice, so a stale one is an error and not another tensor.
 * @module
 */
import { DTYPES } from "../src/core/dtype.ts";
import { BackendError, MemoryError, ShapeError } from "../src/core/errors.ts";
import { byteLength, type Handle, type Tensor } from "../src/core/tensor.ts";

const PAGE = 65536;
/** A cache line and more: arenas count on 256 (src/core/arena.ts). */
const ALIGN = 256;
/** Kernels read rows four floats at a time, up to 12 bytes after the end, and the last row may end the memory. */
const MARGIN = 64;
/** 4 GiB less one page, so that the end of the last block is still a u32. */
export const MOST_BYTES: number = 65535 * PAGE;

interface Block {
  at: number;
  bytes: number;
}

/** Blocks of linear memory by handle. */
export class LinearMemory {
  readonly memory: WebAssembly.Memory;
  readonly #blocks = new Map<Handle, Block & { asked: number }>();
  /** Free blocks in order of address; no two touch. */
  readonly #free: Block[] = [];
  #next = 1;
  #end: number;
  #base: number;
  #active = 0;
  #peak = 0;

  readonly maxBytes: number;

  /** @param maxBytes most bytes of linear memory, at most 4 GiB less one page */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
    const maximum = Math.max(1, Math.min(65535, Math.floor(maxBytes / PAGE)));
    this.memory = new WebAssembly.Memory({ initial: 1, maximum, shared: true });
    this.#end = this.#base = PAGE;
  }

  /** Keeps `bytes` at `from` for the backend itself; called once, before anything is allocated. */
  reserve(from: number, bytes: number): void {
    this.#base = this.#end = Math.ceil((from + bytes) / ALIGN) * ALIGN;
    this.#grow(this.#end);
  }

  /** Bytes that tensors may take. */
  get limit(): number {
    return Math.min(this.maxBytes, MOST_BYTES) - this.#base;
  }
  /** Bytes now in use. */
  get active(): number {
    return this.#active;
  }
  /** Most bytes ever in use at once. */
  get peak(): number {
    return this.#peak;
  }

  /** Bytes the memory has grown by that no tensor uses now; a WebAssembly.Memory never shrinks, so they stay. */
  get cached(): number {
    return this.memory.buffer.byteLength - this.#base - this.#active;
  }
  /** From now on the peak counts from what is in use now. */
  resetPeak(): void {
    this.#peak = this.#active;
  }

  /** @throws {MemoryError} when no hole is large enough and the memory cannot grow */
  alloc(bytes: number): Handle {
    if (!(bytes >= 0)) throw new RangeError(`Cannot allocate ${bytes} bytes`);
    const size = Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN);
    const at = this.#take(size) ?? this.#extend(size);
    this.#blocks.set(this.#next, { at, bytes: size, asked: bytes });
    this.#active += size;
    this.#peak = Math.max(this.#peak, this.#active);
    return this.#next++;
  }

  /** The smallest hole that fits. */
  #take(size: number): number | null {
    let best = -1;
    for (let i = 0; i < this.#free.length; i++) {
      const { bytes } = this.#free[i];
      if (bytes >= size && (best < 0 || bytes < this.#free[best].bytes)) best = i;
    }
    if (best < 0) return null;
    const hole = this.#free[best], at = hole.at;
    if (hole.bytes === size) this.#free.splice(best, 1);
    else {
      hole.at += size;
      hole.bytes -= size;
    }
    return at;
  }

  /** Room at the end, after a hole that ends there. */
  #extend(size: number): number {
    const last = this.#free.at(-1);
    const joins = last !== undefined && last.at + last.bytes === this.#end;
    const at = joins ? last.at : this.#end;
    if (at + size + MARGIN > this.#base + this.limit) {
      const left = this.limit - this.#active;
      throw new MemoryError(
        `Cannot allocate ${size} bytes: ${left} of ${this.limit} are left` +
          (left >= size ? ", in pieces too small" : ""),
        size,
        left,
      );
    }
    this.#grow(at + size + MARGIN);
    if (joins) this.#free.pop();
    this.#end = at + size;
    return at;
  }

  #grow(end: number): void {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return;
    try {
      this.memory.grow(Math.ceil((end - have) / PAGE));
    } catch (cause) {
      const text = `Cannot grow the memory to ${end} bytes: the engine gives ${have}`;
      throw Object.assign(new MemoryError(text, end, have), { cause });
    }
  }

  /** @throws {BackendError} when the handle is not in use */
  free(h: Handle): void {
    const block = this.#blocks.get(h);
    if (!block) throw new BackendError(`Cannot free handle ${h}: it was freed or never made`, "free");
    this.#blocks.delete(h);
    this.#active -= block.bytes;
    let i = this.#free.findIndex((f) => f.at > block.at);
    if (i < 0) i = this.#free.length;
    this.#free.splice(i, 0, { at: block.at, bytes: block.bytes });
    for (const j of [i, i - 1]) {
      const a = this.#free[j], b = this.#free[j + 1];
      if (a && b && a.at + a.bytes === b.at) {
        a.bytes += b.bytes;
        this.#free.splice(j + 1, 1);
      }
    }
  }

  /**
   * Address of a tensor's first byte.
   * @throws {BackendError} when the handle is not in use
   * @throws {ShapeError} when the tensor leaves its block or is not aligned to its elements
   */
  at(t: Tensor): number {
    const block = this.#blocks.get(t.handle);
    if (!block) throw new BackendError(`Cannot use handle ${t.handle}: it was freed or never made`);
    const end = t.byteOffset + byteLength(t);
    if (!(t.byteOffset >= 0) || end > block.asked) {
      throw new ShapeError(
        `Cannot use ${t.dtype} [${t.shape}] at byte ${t.byteOffset}: it ends at ${end} of ${block.asked}`,
      );
    }
    const { bytes, block: elements } = DTYPES[t.dtype];
    if (elements === 1 && t.byteOffset % bytes !== 0) {
      throw new ShapeError(`Cannot use ${t.dtype} at byte ${t.byteOffset}: it is no multiple of ${bytes}`);
    }
    return block.at + t.byteOffset;
  }

  /** The bytes of a tensor; a view that is good until the memory grows. */
  bytes(t: Tensor): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.at(t), byteLength(t));
  }

  /** Forgets all blocks. */
  clear(): void {
    this.#blocks.clear();
    this.#free.length = 0;
    this.#active = 0;
    this.#end = this.#base;
  }
}
