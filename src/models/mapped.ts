/**
 * Weights that are the file's own pages: on unified memory the device reads them where they lie, nothing is copied, and
 * processes that use one file share it.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { type DType, DTYPES, isQuant } from "../core/dtype.ts";
import type { Tensor } from "../core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { liesReady } from "./rows.ts";
import type { SourceTensor } from "./source.ts";

/** Bytes under which a tensor is copied: a mapping takes whole pages, of 16 KiB on Apple silicon. */
const SMALLEST = 65536;

/** What a tensor's place in the file must be a multiple of: four elements, as kernels read them; blocks hold 2-byte words. */
function alignmentOf(dtype: DType): number {
  return isQuant(dtype) ? 2 : 4 * DTYPES[dtype].bytes;
}

/**
 * Maps those tensors that lie in a file exactly as the device wants them. The others are the caller's to copy.
 * @throws {MemoryError} when they do not fit; {BackendError} when the file changed since it was opened
 */
export function mapWeights(
  be: Pick<Backend, "map" | "free">,
  config: ModelConfig,
  places: readonly { readonly tensor: SourceTensor; readonly dtype: DType }[],
): Map<string, Tensor> {
  const mapped = new Map<string, Tensor>();
  if (!be.map) return mapped;
  try {
    for (const { tensor, dtype } of places) {
      const { source, offset, bytes } = tensor.stored;
      if (!source.file || bytes < SMALLEST || offset % alignmentOf(dtype) || !liesReady(tensor, config, dtype)) {
        continue;
      }
      const at = be.map(source.file, offset, bytes);
      if (!at) break; // this device, or this file system, does not do it
      mapped.set(tensor.ours, { ...at, dtype, shape: tensor.shape });
    }
  } catch (e) {
    for (const t of mapped.values()) be.free(t.handle);
    throw e;
  }
  return mapped;
}
