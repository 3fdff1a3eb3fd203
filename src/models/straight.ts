/**
 * Weights that go from the file to the device without passing through JavaScript: where the backend reads files itself and the
 * bytes lie as the device wants them.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { liesReady } from "./rows.ts";
import type { SourceTensor } from "./source.ts";

/** Bytes under which a reader's threads are not worth starting. */
const SMALLEST = 1 << 20;

/**
 * Reads rows from..from + n of a stored tensor to `target` [n, …].
 * @returns false where that is not to be had: read on the host and upload
 * @throws {BackendError} when the file cannot be read
 */
export function readStraight(be: Backend, t: SourceTensor, c: ModelConfig, target: Tensor, from = 0): boolean {
  const { source, offset, bytes } = t.stored;
  if (!be.read || !source.file || bytes < SMALLEST || !liesReady(t, c, target.dtype)) return false;
  return be.read(target, source.file, offset + from * (bytes / t.shape[0]));
}
