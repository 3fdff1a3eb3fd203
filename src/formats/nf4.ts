/**
 * NormalFloat4 in blocks of 64 with one f32 absmax (QLoRA, Dettmers et al. 2023, without double quantisation): each value
 * over its block's absmax becomes the index of the nearest of sixteen. Held against bitsandbytes' bytes.
 * @module
 */
import { ShapeError } from "../core/errors.ts";
import { NF4_VALUES } from "./block_values.ts";

const BLOCK = 64, BYTES = 36;

/** Borders between neighbouring values; a value on the border takes the lower one, as in bitsandbytes. */
const BORDERS: Float32Array = Float32Array.from({ length: 15 }, (_, i) => (NF4_VALUES[i]! + NF4_VALUES[i + 1]!) / 2);

function index(x: number): number {
  let low = 0, high = 15;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > BORDERS[middle]!) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * `x` as nf4 bytes: 32 bytes of nibbles (element 2i high, 2i+1 low), then the absmax.
 * @throws {ShapeError} when the length is no multiple of 64
 */
export function quantizeNf4(x: Float32Array): Uint8Array<ArrayBuffer> {
  if (x.length % BLOCK) throw new ShapeError(`Cannot store ${x.length} elements as nf4: the block is ${BLOCK}`);
  const out = new Uint8Array(x.length / BLOCK * BYTES), view = new DataView(out.buffer);
  for (let block = 0; block < x.length / BLOCK; block++) {
    let most = 0;
    for (let i = 0; i < BLOCK; i++) most = Math.max(most, Math.abs(x[block * BLOCK + i]!));
    const factor = most === 0 ? 0 : Math.fround(1 / most), at = block * BYTES;
    for (let i = 0; i < BLOCK; i += 2) {
      const pair = [0, 1].map((k) => index(Math.fround(x[block * BLOCK + i + k]! * factor)));
      out[at + i / 2] = pair[0]! << 4 | pair[1]!;
    }
    view.setFloat32(at + 32, most, true);
  }
  return out;
}
