/**
 * Bump allocation over one slab: the same calls in the same order give the same addresses, which is what a captured
 * step needs, and freeing a step's thousands of activations is one assignment.
 * @module
 */
import type { Backend } from "./backend.ts";
import { bytesOf, type Dense, type DType } from "./dtype.ts";
import { MemoryError } from "./errors.ts";
import type { Handle, Tensor } from "./tensor.ts";

/** 256: covers CUDA's TMA (128), Metal's buffer offsets (256) and a cache line. */
const ALIGN = 256;

/** Bump allocator over one slab. */
export class Arena {
  /** Bytes of the slab. */
  readonly capacity: number;
  readonly #be: Backend;
  #top = 0;
  #peak = 0;
  #handle: Handle;

  /**
   * @param be where the slab lives
   * @param capacity bytes of the slab; a recording backend takes any
   */
  constructor(be: Backend, capacity: number) {
    this.#be = be;
    this.capacity = capacity;
    this.#handle = be.alloc(capacity);
  }

  /**
   * A tensor at the next aligned offset; contents are whatever was there.
   * @throws {MemoryError} when the slab is full
   */
  tensor(dtype: DType, ...shape: number[]): Tensor {
    const bytes = bytesOf(dtype, shape.reduce((a, b) => a * b, 1));
    const byteOffset = this.#top;
    const end = byteOffset + Math.ceil(bytes / ALIGN) * ALIGN;
    if (end > this.capacity) {
      throw new MemoryError(
        `Cannot place [${shape}] ${dtype}: ${end} bytes needed, the arena has ${this.capacity}`,
        end,
        this.capacity,
      );
    }
    this.#top = end;
    if (end > this.#peak) this.#peak = end;
    return { handle: this.#handle, byteOffset, dtype, shape };
  }

  /** A tensor of the backend's activation type. */
  act(...shape: number[]): Tensor {
    return this.tensor(this.#be.actDtype as Dense, ...shape);
  }

  /** Where the arena stands; hand it to `release`. */
  mark(): number {
    return this.#top;
  }

  /** Gives back everything placed since `mark`. */
  release(mark: number): void {
    this.#top = mark;
  }

  /** Most bytes in use at once so far. */
  get peakBytes(): number {
    return this.#peak;
  }

  /** Returns the slab to the backend. */
  close(): void {
    this.#be.free(this.#handle);
    this.#handle = 0;
  }
}
