// A block of queries meets a block of keys: scores, ds, and what either gives the other. Five products; those over keys' and over
// queries' rows are functions of their own, because two threads may share a sequence (attention_bwd_kernels.ts).
import { heldWeigh, KB, padded, QB } from "./attention";
import { acrossOf, addTo, alongOf, copyRows, dotRows, gradColumns, heldAdd, heldKeys, packQueries } from "./attention_bwd";
import { holdPlain } from "./held";
import { float, int, ptr, words } from "./job";
import { MR, NR, tileRows } from "./micro";
import { packPlain, panelBytes, transpose4 } from "./pack";

/** Bytes of ds of a pair of blocks: f32 [KB, QB]. */
export const TILE: usize = 4 * KB * QB;

// A thread's scratch: panels of op(b), then tiles. Arguments: see attention_bwd_kernels.ts.
// @ts-ignore: decorator
@inline
function across(): usize {
  return words((KB / NR) * (NR * int(14) + 16));
}
// @ts-ignore: decorator
@inline
function along(): usize {
  return words((padded(int(14)) / NR) * (NR * KB + 16));
}
/** Scores; transposed ds; rows of dk or dv; then dq, which a caller may use; lse and dOut·out of the queries. */
// @ts-ignore: decorator
@inline
function tiles(scratch: usize): usize {
  return scratch + 2 * across() + 3 * along();
}
// @ts-ignore: decorator
@inline
export function dqOf(scratch: usize): usize {
  return tiles(scratch) + 2 * TILE + words(QB * padded(int(14)));
}
// @ts-ignore: decorator
@inline
function statOf(scratch: usize): usize {
  return dqOf(scratch) + words(QB * padded(int(14)));
}
/** What follows all of it. */
// @ts-ignore: decorator
@inline
export function after(scratch: usize): usize {
  return statOf(scratch) + words(2 * KB);
}

/** Queries q0..q0+nq of head h, for `meetKeys`. */
export function takeQueries(q0: i32, nq: i32, h: i32, scratch: usize): void {
  const d = int(14), lda = words(int(12) * d), from = words((q0 * int(12) + h) * d), a = across(), b = along(), stat = statOf(scratch);
  packQueries(int(16) !== 0, ptr(4) + from, ptr(3) + from, lda, nq, d, scratch, scratch + a, scratch + 2 * a, scratch + 2 * a + b);
  memory.copy(stat, ptr(8) + words(h * int(11) + q0), words(nq));
  dotRows(ptr(3) + from, ptr(7) + from, lda, nq, d, stat + words(KB));
}

/** Keys k0..k0+nk of a kv head and the queries taken: ds [keys, queries] to g, and what it adds to dk and dv. */
export function meetKeys(k0: i32, nk: i32, kv: i32, q0: i32, nq: i32, g: usize, scratch: usize): void {
  const d = int(14), dp = padded(d), step = words(int(13) * d), at = <usize>k0 * step + words(kv * d), shift = q0 - k0;
  const s = tiles(scratch), sum = s + 2 * TILE, ha = acrossOf(d), hb = alongOf(d), stat = statOf(scratch);
  if (int(16)) {
    heldKeys(ptr(5) + at, step, nk, 0, d, nq, shift, s, float(0));
    heldKeys(ptr(6) + at, step, nk, ha, d, nq, shift, g, 1);
    gradColumns(k0, nk, q0, nq, s, g, stat);
    heldAdd(ptr(2) + at, step, s, nk, 2 * ha + hb, nq, shift, d);
    heldAdd(ptr(1) + at, step, g, nk, 2 * ha, nq, shift, d);
  } else {
    const qT = scratch, oT = qT + across(), qs = oT + across(), os = qs + along();
    scoresOfKeys(ptr(5) + at, step, nk, qT, d, nq, shift, s, float(0));
    scoresOfKeys(ptr(6) + at, step, nk, oT, d, nq, shift, g, 1);
    gradColumns(k0, nk, q0, nq, s, g, stat);
    addBlock(ptr(2) + at, step, s, nk, os, nq, shift, d, dp, sum);
    addBlock(ptr(1) + at, step, g, nk, qs, nq, shift, d, dp, sum);
  }
}

/** dq[nq, d] += dsᵀ · keys. */
export function meetQueries(k0: i32, nk: i32, kv: i32, shift: i32, nq: i32, g: usize, dq: usize, scratch: usize): void {
  const d = int(14), dp = padded(d), step = words(int(13) * d), from = ptr(5) + <usize>k0 * step + words(kv * d);
  const ks = scratch + 2 * across() + 2 * along(), t = tiles(scratch) + TILE, held = 2 * acrossOf(d) + 2 * alongOf(d);
  if (int(16)) {
    holdPlain(from, 0, step, nk, d, held, ks);
    // A chunk of t is multiplied whole, by zeros beyond the last key: those of t must be finite.
    if (nk < KB) memory.fill(g + words(nk * KB), 0, words((KB - nk) * KB));
    transposeTile(g, KB, nq, t);
    heldWeigh(t, nq, held, nk, shift, d, dq, words(dp));
  } else {
    packPlain(from, 0, step, 0, nk, 0, d, ks, 0);
    transposeTile(g, nk, nq, t);
    addKeys(t, nq, ks, nk, shift, d, dq, dp);
  }
}

/** s[keys, queries] = alpha · keys · panels, without the tiles whose queries all come before their keys. */
function scoresOfKeys(keys: usize, step: usize, nk: i32, panels: usize, d: i32, nq: i32, shift: i32, s: usize, alpha: f32): void {
  for (let n = 0; n < nq; n += NR, panels += panelBytes(NR, d)) {
    const end = min(nk, n + NR + shift);
    for (let m = 0; m < end; m += MR) {
      tileRows(d, keys + <usize>m * step, step, nk - 1 - m, panels, s + words(m * KB + n), words(KB), alpha, false);
    }
  }
}

/** to[keys, d] += w[keys, queries] · panels; whole tiles go through `sum`, because rows after the last are not ours. */
function addBlock(to: usize, step: usize, w: usize, nk: i32, panels: usize, nq: i32, shift: i32, d: i32, dp: i32, sum: usize): void {
  for (let r = 0; r < nk; r++) {
    const row = sum + words(r * dp), have = to + <usize>r * step;
    memory.copy(row, have, words(d));
  }
  addTo(sum, w, nk, panels, nq, shift, d, dp);
  copyRows(to, step, sum, dp, nk, d);
}

/** t[queries, keys] = g[keys, queries] transposed. */
function transposeTile(g: usize, nk: i32, nq: i32, t: usize): void {
  for (let m = 0; m < nk; m += 4) {
    for (let n = 0; n < nq; n += 4) {
      const s = g + words(m * KB + n);
      transpose4(s, s + words(KB), s + words(2 * KB), s + words(3 * KB), t + words(n * KB + m), words(KB));
    }
  }
}

/** dq[queries, d] += ds · keys; a row tile stops at its last query's own key. */
function addKeys(ds: usize, nq: i32, panels: usize, nk: i32, shift: i32, d: i32, dq: usize, dp: i32): void {
  for (let n = 0; n < d; n += NR, panels += panelBytes(NR, nk)) {
    for (let m = 0; m < nq; m += MR) {
      const k = min(nk, m + MR + shift);
      if (k <= 0) continue;
      tileRows(k, ds + words(m * KB), words(KB), nq - 1 - m, panels, dq + words(m * dp + n), words(dp), 1, true);
    }
  }
}
