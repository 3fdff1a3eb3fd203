// Operands held in structs (../panel_kernel.ts): a block of op(b) is decoded into panels of NR columns, chunk by chunk, and rows of A are
// multiplied by them where they lie. A block's structs lie from `at` on, `step` of them a chunk. What lies beyond the block is zero.
import { bytesOf, decode } from "./decode";
import { words } from "./job";
import { CHUNK, fillPlain, fillTransposed, multiplyPanels, NR, ROWS, takeTiles } from "./micro";

/** Structs that a block of k by n elements takes in each chunk, and chunks. */
// @ts-ignore: decorator
@inline
export function panelsOf(n: i32): i32 {
  return (n + NR - 1) / NR;
}
// @ts-ignore: decorator
@inline
export function chunksOf(k: i32): i32 {
  return (k + CHUNK - 1) / CHUNK;
}

/** n elements of a row as f32 and zeros up to `ld` bytes. */
function row(to: usize, ld: usize, type: i32, from: usize, n: i32): void {
  if (n > 0 && type === 0) memory.copy(to, from, words(n));
  else if (n > 0) decode(type, from, to, n);
  if (ld > words(n)) memory.fill(to + words(n), 0, ld - words(n));
}

/** b's rows are op(b)'s: kc of them, `bytes` apart, n elements of each. `strip` holds CHUNK rows of whole panels. */
export function holdPlain(b: usize, type: i32, bytes: usize, kc: i32, n: i32, at: i32, strip: usize): void {
  const panels = panelsOf(n), ld = words(panels * NR);
  for (let k = 0; k < kc; k += CHUNK, at += panels) {
    const from = b + <usize>k * bytes, have = min(CHUNK, kc - k);
    if (type === 0 && have === CHUNK && n % NR === 0) fillPlain(from, bytes, panels, at);
    else {
      for (let r = 0; r < CHUNK; r++) row(strip + <usize>r * ld, ld, type, from + <usize>r * bytes, r < have ? n : 0);
      fillPlain(strip, ld, panels, at);
    }
  }
}

/** b's rows are op(b)'s columns: n of them, `bytes` apart, kc elements of each. `strip` holds NR rows of whole chunks. */
export function holdTransposed(b: usize, type: i32, bytes: usize, kc: i32, n: i32, at: i32, strip: usize): void {
  const panels = panelsOf(n), chunks = chunksOf(kc), ld = words(chunks * CHUNK);
  for (let p = 0; p < panels; p++) {
    const from = b + <usize>(p * NR) * bytes, rows = min(NR, n - p * NR);
    if (type === 0 && rows === NR && kc % CHUNK === 0) fillTransposed(from, bytes, chunks, at + p, panels);
    else {
      for (let r = 0; r < NR; r++) row(strip + <usize>r * ld, ld, type, from + <usize>r * bytes, r < rows ? kc : 0);
      fillTransposed(strip, ld, chunks, at + p, panels);
    }
  }
}

/** Whether only the first half of k's last chunk is used. */
// @ts-ignore: decorator
@inline
export function isShort(k: i32): bool {
  return (k - 1) % CHUNK < CHUNK / 2;
}

/**
 * c[rows, columns of panels first..end] = alpha · a · block (+ c) for up to ROWS rows, over elements k0..k1 of a's rows; k0 is a multiple
 * of CHUNK. a's rows are read up to the end of a chunk.
 */
// @ts-ignore: decorator
@inline
export function heldTile(
  a: usize, lda: usize, rows: i32, at: i32, step: i32, k0: i32, k1: i32, first: i32, end: i32, c: usize, ldc: usize, alpha: f32, add: bool,
): void {
  const last = min(ROWS, rows) - 1;
  multiplyPanels(a + words(k0), lda, last, at + k0 / CHUNK * step, step, chunksOf(k1 - k0), first, end, true, isShort(k1 - k0));
  takeTiles(first, end, c + words(first * NR), ldc, last, alpha, add);
}

/** c[rows, n] = alpha · a · block (+ c), all of it. */
export function heldProduct(
  a: usize, lda: usize, rows: i32, at: i32, k: i32, n: i32, c: usize, ldc: usize, alpha: f32, add: bool,
): void {
  for (let m = 0; m < rows; m += ROWS) {
    const to = c + <usize>m * ldc;
    heldTile(a + <usize>m * lda, lda, rows - m, at, panelsOf(n), 0, k, 0, panelsOf(n), to, ldc, alpha, add);
  }
}
