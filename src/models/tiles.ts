/**
 * Uploads a weight that the backend rounds to fp8_128 itself: its exact rows go to the device in chunks, and are rounded there.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { byteLength, slice, type Tensor } from "../core/tensor.ts";
import { TILE } from "../formats/fp8.ts";
import type { ModelConfig } from "./config.ts";
import { readRows } from "./rows.ts";
import type { SourceTensor } from "./source.ts";
import { readStraight } from "./straight.ts";

/** Bytes on the device in which exact rows wait; readRows' chunks are no larger, but for one unit of rows. */
const STAGED = 32 << 20;

/**
 * @param target [R,C] of type fp8_128
 * @param scratch host memory for the rows where they pass through it
 */
export async function uploadTiles(
  be: Backend,
  t: SourceTensor,
  c: ModelConfig,
  target: Tensor,
  scratch: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const exact: SourceTensor = { ...t, stored: t.unrounded! };
  const dtype = be.supports(exact.stored.dtype as Tensor["dtype"]) ? exact.stored.dtype as Tensor["dtype"] : "f32";
  const rowBytes = byteLength({ handle: 0, byteOffset: 0, dtype, shape: [1, t.shape[1]] });
  const step = Math.max(1, Math.floor(STAGED / rowBytes / TILE)) * TILE;
  const staged: Tensor = { handle: be.alloc(step * rowBytes), byteOffset: 0, dtype, shape: [step, t.shape[1]] };
  try {
    for (let from = 0; from < t.shape[0]; from += step) {
      const rows = slice(staged, 0, Math.min(step, t.shape[0] - from));
      if (!readStraight(be, exact, c, rows, from)) break;
      be.quantizeFp8(target, rows, from);
      await Promise.resolve();
      if (from + step >= t.shape[0]) return;
    }
    for (const { from, to, values } of readRows(exact, c, dtype, scratch, TILE)) {
      const rows: Tensor = { ...staged, shape: [to - from, t.shape[1]] };
      be.upload(rows, values);
      be.quantizeFp8(target, rows, from);
      await Promise.resolve();
    }
  } finally {
    be.free(staged.handle);
  }
}
