/**
 * A model whose linear weights are quantised as they are read (QLoRA's 4-bit base): to all who read it, loading and
 * merging alike, the tensors simply are of that type, so what is exported is what was trained.
 * @module
 */
import type { ByteSource } from "../formats/bytes.ts";
import { quantizeNf4 } from "../formats/nf4.ts";
import { readFloats, storedBytes, type StoredTensor } from "../formats/stored.ts";
import { isQuant } from "../core/dtype.ts";
import type { ModelSource, SourceTensor } from "./source.ts";

/** A model and what it was before its weights were quantised. */
export interface QuantizedSource extends ModelSource {
  readonly exact: ModelSource;
}

/** True for what `quantizeSource` made. */
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
    const { dtype } = t.stored, dense = dtype === "f32" || dtype === "f16" || dtype === "bf16";
    const linear = t.shape.length === 2 && t.ours.startsWith("layers.") && t.shape[1] % BLOCK === 0;
    return dense && linear && !isQuant(dtype) ? { ...t, stored: lazily(t.stored) } : t;
  });
  return { ...exact, tensors, exact };
}

/** The tensor in nf4, rows made when they are asked for. */
function lazily(t: StoredTensor): StoredTensor {
  const bytes = storedBytes("nf4", t.shape), row = bytes / t.shape[0];
  const read = (offset: number, length: number) => {
    const from = Math.floor(offset / row), to = Math.ceil((offset + length) / row);
    return quantizeNf4(readFloats(t, from, to)).slice(offset - from * row, offset - from * row + length);
  };
  const source: ByteSource = {
    name: t.source.name,
    size: bytes,
    read,
    readInto: (offset, into) => into.set(read(offset, into.length)),
    close: () => {},
  };
  return { name: t.name, dtype: "nf4", shape: t.shape, source, offset: 0, bytes };
}
