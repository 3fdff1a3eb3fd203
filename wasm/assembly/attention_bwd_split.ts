// Backward of packed attention for few long sequences on many threads: one kernel adds up dq for a block of queries, one dk
// and dv for a block of keys. Scores are computed in both (7 products instead of 5), so that no two units write the same
// place and the order of every sum is fixed.
import { KB, padded, product, QB } from "./attention";
import { acrossOf, addTo, alongOf, clear, copyRows, dotRows, grad1, grad4, gradColumns, heldAdd, packQueries } from "./attention_bwd";
import { heldProduct, holdPlain, holdTransposed } from "./held";
import { float, int, ptr, words } from "./job";
import { NR } from "./micro";
import { packPlain, packTransposed } from "./pack";

// Arguments of both: dq, dk, dv, dOut, q, k, v, out, lse, blocks, count, N, H, K, d, window, first kv head, held; scale, softcap.

/** dq of a block of queries and one query head. */
export function attentionBwdQ(u: i32, scratch: usize): void {
  const H = int(12), K = int(13), d = int(14), window = int(15), count = int(10), dp = padded(d);
  const block = ptr(9) + (<usize>(count - 1 - u % count) << 4), h = int(16) * (H / K) + u / count, kv = h / (H / K);
  const n0 = load<i32>(block), rows = load<i32>(block, 4), base = load<i32>(block, 8), p0 = load<i32>(block, 12);
  const at = words((n0 * H + h) * d), lda = words(H * d), step = words(K * d);
  if (base < 0) {
    for (let r = 0; r < rows; r++) memory.fill(ptr(0) + at + <usize>r * lda, 0, words(d));
    return;
  }
  const keys = scratch, values = keys + words((KB / NR) * (NR * d + 16)), plain = values + words((KB / NR) * (NR * d + 16));
  const s = plain + words((dp / NR) * (NR * KB + 16)), g = s + words(QB * KB), sum = g + words(QB * KB);
  const held = int(17) !== 0, ha = acrossOf(d);
  const means = sum + words(QB * dp), lses = ptr(8) + words(h * int(11) + n0);
  memory.fill(sum, 0, words(QB * dp));
  dotRows(ptr(3) + at, ptr(7) + at, lda, rows, d, means);
  for (let j = window > 0 ? max(0, p0 - window + 1) / KB * KB : 0; j < p0 + rows; j += KB) {
    const nk = min(KB, p0 + rows - j), from = <usize>(base + j) * step + words(kv * d), shift = p0 - j;
    if (held) {
      holdTransposed(ptr(5) + from, 0, step, d, nk, 0, keys);
      holdTransposed(ptr(6) + from, 0, step, d, nk, ha, keys);
      holdPlain(ptr(5) + from, 0, step, nk, d, 2 * ha, keys);
      heldProduct(ptr(4) + at, lda, rows, 0, d, nk, s, words(KB), float(0), false);
      heldProduct(ptr(3) + at, lda, rows, ha, d, nk, g, words(KB), 1, false);
    } else {
      packTransposed(ptr(5) + from, 0, step, 0, d, 0, nk, keys, 0);
      packTransposed(ptr(6) + from, 0, step, 0, d, 0, nk, values, 0);
      packPlain(ptr(5) + from, 0, step, 0, nk, 0, d, plain, 0);
      product(ptr(4) + at, lda, rows, keys, d, nk, s, words(KB), float(0), false);
      product(ptr(3) + at, lda, rows, values, d, nk, g, words(KB), 1, false);
    }
    for (let r = 0; r < rows; r++) {
      const hi = min(nk, r + shift + 1), lo = min(hi, window > 0 ? max(0, r + shift + 1 - window) : 0);
      const sr = s + words(r * KB), gr = g + words(r * KB);
      const lse = load<f32>(lses + words(r)), mean = load<f32>(means + words(r));
      let i = lo;
      for (; i + 4 <= hi; i += 4) grad4(sr + words(i), gr + words(i), f32x4.splat(lse), f32x4.splat(mean), float(1));
      for (; i < hi; i++) grad1(sr + words(i), gr + words(i), lse, mean, float(1));
      clear(sr, gr, lo, hi);
    }
    if (held) heldProduct(g, words(KB), rows, 2 * ha, nk, d, sum, words(dp), 1, true);
    else product(g, words(KB), rows, plain, nk, d, sum, words(dp), 1, true);
  }
  copyRows(ptr(0) + at, lda, sum, dp, rows, d);
}

/** dk and dv of a block of keys and one kv head: rows of the tiles are keys, columns queries. */
export function attentionBwdKV(u: i32, scratch: usize): void {
  const H = int(12), K = int(13), d = int(14), count = int(10), dp = padded(d), G = H / K;
  const index = u % count, block = ptr(9) + (<usize>index << 4), kv = int(16) + u / count;
  const n0 = load<i32>(block), rows = load<i32>(block, 4), base = load<i32>(block, 8);
  const at = words((n0 * K + kv) * d), step = words(K * d);
  const dk = scratch, dv = dk + words(QB * dp), rest = dv + words(QB * dp);
  memory.fill(dk, 0, words(2 * QB * dp));
  if (base >= 0) {
    for (let b = index; b < count; b++) {
      const queries = ptr(9) + (<usize>b << 4);
      if (load<i32>(queries, 8) !== base) break;
      if (int(15) > 0 && load<i32>(queries) - (n0 + rows - 1) >= int(15)) break;
      for (let g = 0; g < G; g++) keysMeet(n0, rows, at, step, load<i32>(queries), load<i32>(queries, 4), kv * G + g, dk, dv, rest);
    }
  }
  copyRows(ptr(1) + at, step, dk, dp, rows, d);
  copyRows(ptr(2) + at, step, dv, dp, rows, d);
}

/** Adds what queries q0..q0+nq of head h give to keys k0..k0+rows. */
function keysMeet(k0: i32, rows: i32, at: usize, step: usize, q0: i32, nq: i32, h: i32, dk: usize, dv: usize, rest: usize): void {
  const H = int(12), d = int(14), dp = padded(d), lda = words(H * d), from = words((q0 * H + h) * d);
  const across = words((KB / NR) * (NR * d + 16)), along = words((dp / NR) * (NR * KB + 16));
  const qT = rest, oT = qT + across, qs = oT + across, os = qs + along, s = os + along, g = s + words(QB * KB);
  const stat = g + words(QB * KB);
  const held = int(17) !== 0, ha = acrossOf(d);
  packQueries(held, ptr(4) + from, ptr(3) + from, lda, nq, d, qT, oT, qs, os);
  memory.copy(stat, ptr(8) + words(h * int(11) + q0), words(nq));
  dotRows(ptr(3) + from, ptr(7) + from, lda, nq, d, stat + words(KB));
  if (held) {
    heldProduct(ptr(5) + at, step, rows, 0, d, nq, s, words(KB), float(0), false);
    heldProduct(ptr(6) + at, step, rows, ha, d, nq, g, words(KB), 1, false);
  } else {
    product(ptr(5) + at, step, rows, qT, d, nq, s, words(KB), float(0), false);
    product(ptr(6) + at, step, rows, oT, d, nq, g, words(KB), 1, false);
  }
  gradColumns(k0, rows, q0, nq, s, g, stat);
  if (held) {
    heldAdd(dv, words(dp), s, rows, 2 * ha + alongOf(d), nq, q0 - k0, d);
    heldAdd(dk, words(dp), g, rows, 2 * ha, nq, q0 - k0, d);
  } else {
    addTo(dv, s, rows, os, nq, q0 - k0, d, dp);
    addTo(dk, g, rows, qs, nq, q0 - k0, d, dp);
  }
}

