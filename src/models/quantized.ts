/**
 * A model whose linear weights are quantised as they are read (QLoRA's 4-bit base, an 8-bit base): to all who read it, loading and
 * merging alike, the tensors simply are of that type, so what is exported is what was trained.
 * @module
 */
import type { ByteSource } from "../formats/bytes.ts";
import { roundTiles, TILE, tiles } from "../formats/fp8.ts";
import { quantizeNf4 } from "../formats/nf4.ts";
import { readFloats, storedBytes, type StoredTensor } from "../formats/stored.ts";
import type { ModelSource, SourceTensor } from "./source.ts";

/** A model and what it was before its weights were quantised. */
export interface QuantizedSource extends ModelSource {
  readonly exact: ModelSource;
}

/** True for what `quantizeSource` or `roundSource` made. */
export function isQuantized(s: ModelSource): s is QuantizedSource {
  return "exact" in s;
}

/** Elements of an nf4 block. */
const BLOCK = 64;

/**
 * The model with the linears of its blocks as nf4, as bitsandbytes does with load_in_4bit: embedding, head and vectors
 * stay, and so do tensors that are quantised already or whose rows are no multiple of 64.
 */
export function quantizeSource(exact: ModelSource): QuantizedSource {
  const tensors = exact.tensors.map((t): SourceTensor => {
    return isDenseLinear(t) && t.shape[1] % BLOCK === 0 ? { ...t, stored: lazily(t.stored) } : t;
  });
  return { ...exact, tensors, exact };
}

/**
 * The model with the linears of its blocks rounded to fp8_128 (load_in_fp8); those whose sizes are no multiples of 128 stay,
 * and so does all else.
 */
export function roundSource(exact: ModelSource): QuantizedSource {
  const tensors = exact.tensors.map((t): SourceTensor => {
    return isDenseLinear(t) && tiles(t.shape) ? { ...t, stored: rounded(t.stored), unrounded: t.stored } : t;
  });
  return { ...exact, tensors, exact };
}

/** A linear of a block in 16 or 32 bits. */
function isDenseLinear(t: SourceTensor): boolean {
  const { dtype } = t.stored, dense = dtype === "f32" || dtype === "f16" || dtype === "bf16";
  return dense && t.shape.length === 2 && t.ours.startsWith("layers.");
}

/** The tensor in f32, each square of 128 rounded when it is asked for. */
function rounded(t: StoredTensor): StoredTensor {
  const [rows, columns] = t.shape, row = 4 * columns;
  return ofRows({ ...t, dtype: "f32", offset: 0, bytes: rows * row }, row, (from, to) => {
    const first = Math.floor(from / TILE) * TILE, last = Math.min(rows, Math.ceil(to / TILE) * TILE);
    const values = readFloats(t, first, last);
    roundTiles(values, last - first, columns);
    const whole = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return whole.subarray((from - first) * row, (to - first) * row);
  });
}

/** A stored tensor whose bytes are made from whole rows. */
function ofRows(
  t: StoredTensor,
  row: number,
  make: (from: number, to: number) => Uint8Array<ArrayBuffer>,
): StoredTensor {
  const read = (offset: number, length: number) => {
    const from = Math.floor(offset / row), to = Math.ceil((offset + length) / row);
    return make(from, to).slice(offset - from * row, offset - from * row + length);
  };
  const source: ByteSource = {
    name: t.source.name,
    size: t.bytes,
    read,
    readInto: (offset, into) => into.set(read(offset, into.length)),
    close: () => {},
  };
  return { ...t, source };
}

/** The tensor in nf4, rows made when they are asked for. */
function lazily(t: StoredTensor): StoredTensor {
  const bytes = storedBytes("nf4", t.shape);
  return ofRows({ ...t, dtype: "nf4", offset: 0, bytes }, bytes / t.shape[0], (from, to) => {
    return quantizeNf4(readFloats(t, from, to));
  });
}
