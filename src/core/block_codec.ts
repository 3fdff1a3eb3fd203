/**
 * What encodes f32 rows into GGUF's block formats off the calling thread. wasm/blocks.ts implements it; whoever exports
 * gets one from the program's top, which alone names the backends.
 * @module
 */
import type { Quant } from "./dtype.ts";

/** An encoder of blocks; several calls may be in work at once, as many as `threads` of them side by side. */
export interface BlockCodec {
  readonly threads: number;
  /**
   * Bytes of whole rows, as ggml writes them. Resolves in any order.
   * @param x [rows, cols], of memory of its own, which the call takes over
   * @param importance weight of each column; null for none
   * @throws {ShapeError} when rows are no multiple of the block; {BackendError} when the module fails
   */
  encode(
    dtype: Quant,
    cols: number,
    x: Float32Array<ArrayBuffer>,
    importance: Float32Array<ArrayBuffer> | null,
  ): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}
