/**
 * Fills argument structs. One block of memory is reused for every call: its bytes are read before the call returns.
 * @module
 */
import { DTYPES } from "../src/core/dtype.ts";
import { ShapeError } from "../src/core/errors.ts";
import type { Tensor } from "../src/core/tensor.ts";
import { type Arg, TENSOR_WORDS, type Word } from "./abi.ts";

/** Room for the largest struct (attentionBwd: 94 words) and then some. */
const WORDS = 256;

/** Writes tensors and scalars as the C structs lay them out. */
export class Packer {
  // An ArrayBuffer of its own, so that engines keep it outside the moving heap.
  readonly #block = new ArrayBuffer(WORDS * 4);
  readonly #u32 = new Uint32Array(this.#block);
  readonly #i32 = new Int32Array(this.#block);
  readonly #f32 = new Float32Array(this.#block);

  /** Plain words; the rest of the block is the library's to write. */
  words(values: readonly number[]): Uint32Array {
    this.#u32.set(values);
    return this.#u32;
  }

  /** The struct of `list` with `values`, one for each. */
  struct(list: readonly Arg[], values: readonly Word[]): Uint32Array {
    let at = 0;
    for (let i = 0; i < list.length; i++) {
      const v = values[i];
      if (typeof v === "number") {
        const { kind } = list[i];
        // A choice between the arrays, then one store, would be a store into an array of unknown type.
        if (kind === "f32") this.#f32[at] = v;
        else if (kind === "i32") this.#i32[at] = v;
        else this.#u32[at] = v;
        at++;
      } else {
        if (v === null) this.#absent(at);
        else this.#tensor(v, at);
        at += TENSOR_WORDS;
      }
    }
    return this.#u32;
  }

  #absent(at: number): void {
    for (let i = 0; i < TENSOR_WORDS; i++) this.#u32[at + i] = 0;
  }

  #tensor(t: Tensor, at: number): void {
    const u = this.#u32, n = t.shape.length;
    if (n > 4) throw new ShapeError(`Cannot pass [${t.shape}] to a library: at most 4 axes`);
    u[at] = t.handle;
    u[at + 1] = DTYPES[t.dtype].code;
    u[at + 2] = t.byteOffset;
    u[at + 3] = t.byteOffset / 4294967296;
    u[at + 4] = n;
    for (let i = 0; i < 4; i++) u[at + 5 + i] = i < n ? t.shape[i] : 1;
  }
}
