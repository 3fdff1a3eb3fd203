// Which of the two kernels over panels is the faster one here is found by running them (../probe.ts): they give the same
// bits, and which engine and which processor this is would have to be guessed otherwise.
import { heapBase } from "./job";
import { LEAN, TALL, tileLean, tilePanel } from "./micro";

/** Rows of a packed panel of A. */
export function panelRows(lean: bool): i32 {
  return lean ? LEAN : TALL;
}

/** A number of tiles over zeros behind the static data: 256 k of them, panels and tile in 48 KiB. */
export function race(lean: bool, tiles: i32): void {
  const pa = (heapBase() + 63) & ~63, pb = pa + 8192, c = pb + 32768;
  for (; tiles > 0; --tiles) {
    if (lean) tileLean(256, pa, pb, c, 64, 1, false);
    else tilePanel(256, pa, pb, c, 64, 1, false);
  }
}
