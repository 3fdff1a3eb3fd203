/**
 * Reads a tensor's rows in bounded chunks, as bytes of its own type or as f32, with what a GGUF does to them undone:
 * llama's q and k rows put back in transformers' order (whole rows move, so blocks stay whole), gemma's +1 taken off.
 * @module
 */
import type { DType } from "../core/dtype.ts";
import { readFloats } from "../formats/stored.ts";
import type { ModelConfig } from "./config.ts";
import type { SourceTensor } from "./source.ts";

/** Bytes read at once; bounds the host memory a load takes. */
export const CHUNK: number = 8 << 20;

/** Rows [from, to) of a tensor. */
export interface RowChunk {
  readonly from: number;
  readonly to: number;
  readonly values: Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

/**
 * All rows, a chunk at a time; a chunk's values are valid until the next one is asked for.
 * @param as the tensor's own type (bytes as they lie), or f32
 * @param scratch memory for the bytes, CHUNK long, so that a load makes no garbage
 * @param multiple rows of a chunk are a multiple of this, but for the last
 */
export function* readRows(
  t: SourceTensor,
  c: ModelConfig,
  as: DType,
  scratch: Uint8Array<ArrayBuffer> = new Uint8Array(Math.min(CHUNK, t.stored.bytes)),
  multiple = 1,
): Generator<RowChunk> {
  const rows = t.shape[0], heads = headsOf(t, c), head = heads ? rows / heads : 1;
  const unit = head * multiple / gcd(head, multiple);
  const own = as === t.stored.dtype && !(t.ggufAs === "plusOne" && isGguf(t));
  const rowBytes = t.stored.bytes / rows,
    step = Math.max(unit, Math.floor(CHUNK / Math.max(rowBytes, 4) / unit) * unit);
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(rows, from + step);
    const values = own ? readInto(t, from * rowBytes, (to - from) * rowBytes, scratch) : readFloats(t.stored, from, to);
    if (heads) unpermute(values, head, to - from);
    if (t.ggufAs === "plusOne" && isGguf(t)) { for (let i = 0; i < values.length; i++) values[i] -= 1; }
    yield { from, to, values };
  }
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/** Whether the bytes in the file are the tensor as the device wants it: its own type, nothing to put in order. */
export function liesReady(t: SourceTensor, c: ModelConfig, as: DType): boolean {
  return as === t.stored.dtype && headsOf(t, c) === 0 && !(t.ggufAs === "plusOne" && isGguf(t));
}

/** Bytes of a tensor in the scratch memory, or in memory of their own when one head is larger than it. */
function readInto(
  t: SourceTensor,
  at: number,
  length: number,
  scratch: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const { source, offset } = t.stored;
  if (length > scratch.length) return source.read(offset + at, length);
  const bytes = scratch.subarray(0, length);
  source.readInto(offset + at, bytes);
  return bytes;
}

/**
 * Rows [from, to) as f32 in transformers' form.
 * @throws {RangeError} when the range cuts through a head whose rows the file interleaves (`rowUnit`)
 */
export function readRowRange(t: SourceTensor, c: ModelConfig, from: number, to: number): Float32Array<ArrayBuffer> {
  const heads = headsOf(t, c), unit = heads ? t.shape[0] / heads : 1;
  if (from % unit || to % unit) {
    throw new RangeError(`Cannot read rows ${from} to ${to} of '${t.ours}': ${unit} a head`);
  }
  const values = readFloats(t.stored, from, to);
  if (heads) unpermute(values, unit, to - from);
  if (t.ggufAs === "plusOne" && isGguf(t)) { for (let i = 0; i < values.length; i++) values[i] -= 1; }
  return values;
}

/** True when the tensor lies in the file under its GGUF name. */
const isGguf = (t: SourceTensor): boolean => t.stored.name === t.gguf;

/** Heads whose rows a GGUF keeps interleaved; 0 when it does not. */
function headsOf(t: SourceTensor, c: ModelConfig): number {
  if (!isGguf(t)) return 0;
  return t.ggufAs === "permuteQ" ? c.heads : t.ggufAs === "permuteK" ? c.kvHeads : 0;
}

/** Row 2i+j of a head in the file is row j·d/2+i of ours (conversion/llama.py, permute). */
function unpermute(values: Uint8Array | Float32Array, d: number, rows: number): void {
  const width = values.length / rows, head = values.slice(0, d * width);
  for (let base = 0; base < values.length; base += d * width) {
    head.set(values.subarray(base, base + d * width));
    for (let r = 0; r < d; r++) {
      const from = r * width, to = base + ((r % 2) * d / 2 + (r >> 1)) * width;
      values.set(head.subarray(from, from + width), to);
    }
  }
}
