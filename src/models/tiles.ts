/**
 * Uploads a weight that the backend rounds to fp8_128 itself: its exact rows go to the device in chunks, and are rounded there.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { byteLength, slice, type Tensor } from "../core/tensor.ts";
import { TILE } from "../formats/fp8.ts";
import type { ModelConfig } from "./config.ts";
import { CHUNK, readRows } from "./rows.ts";
import type { SourceTensor } from "./source.ts";

/**
 * @param target [R,C] of type fp8_128
 * @param scratch host memory of CHUNK bytes
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
  let staged: Tensor | null = null;
  try {
    for (const { from, to, values } of readRows(exact, c, dtype, scratch, TILE)) {
      staged ??= {
        handle: be.alloc(Math.max(CHUNK, values.byteLength)),
        byteOffset: 0,
        dtype,
        shape: [to - from, t.shape[1]],
      };
      const rows = slice(staged, 0, to - from);
      if (values.byteLength !== byteLength(rows)) {
        throw new RangeError(`Cannot upload '${t.ours}': its chunks differ in type`);
      }
      be.upload(rows, values);
      be.quantizeFp8(target, rows, from);
      await Promise.resolve();
    }
  } finally {
    if (staged) be.free(staged.handle);
  }
}
