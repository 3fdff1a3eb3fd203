// Backward of packed attention, five products a pair of blocks. Unit u is one sequence and one kv head: it alone writes dq
// of the group's heads and dk, dv of the sequence, in a fixed order. Bound by arithmetic: 10·d·keys a query and head.
import { heldWeigh, KB, padded, QB } from "./attention";
import { acrossOf, addTo, alongOf, copyRows, dotRows, gradColumns, heldAdd, heldKeys, packQueries } from "./attention_bwd";
import { holdPlain } from "./held";
import { float, int, ptr, words } from "./job";
import { MR, NR, tileRows } from "./micro";
import { packPlain, panelBytes, transpose4 } from "./pack";

// Arguments: dq, dk, dv, dOut, q, k, v, out, lse, blocks, count, N, H, K, d, window, order, kv heads taken, held; scale, softcap.
// `order` holds the first block of each sequence, the longest sequence first.

export function attentionBwdWhole(u: i32, scratch: usize): void {
  const G = int(12) / int(13), taken = int(17), count = int(10), kv = u % taken;
  const first = load<i32>(ptr(16) + words(u / taken)), base = load<i32>(ptr(9) + (<usize>first << 4), 8);
  let end = first;
  while (end < count && load<i32>(ptr(9) + (<usize>end << 4), 8) === base) end++;
  const last = ptr(9) + (<usize>(end - 1) << 4), n0 = load<i32>(ptr(9) + (<usize>first << 4));
  clearRows(n0, load<i32>(last) + load<i32>(last, 4), kv, G);
  if (base < 0) return;
  for (let b = first; b < end; b++) {
    const block = ptr(9) + (<usize>b << 4);
    for (let g = 0; g < G; g++) {
      queriesMeet(base, load<i32>(block), load<i32>(block, 4), load<i32>(block, 12), kv, kv * G + g, scratch);
    }
  }
}

/** Zeroes what the unit writes, since it adds. */
function clearRows(from: i32, to: i32, kv: i32, G: i32): void {
  const H = int(12), K = int(13), d = int(14);
  for (let n = from; n < to; n++) {
    memory.fill(ptr(0) + words((n * H + kv * G) * d), 0, words(G * d));
    memory.fill(ptr(1) + words((n * K + kv) * d), 0, words(d));
    memory.fill(ptr(2) + words((n * K + kv) * d), 0, words(d));
  }
}

/** All that queries q0..q0+nq of head h give and get, key block by key block. */
function queriesMeet(base: i32, q0: i32, nq: i32, p0: i32, kv: i32, h: i32, scratch: usize): void {
  const H = int(12), K = int(13), d = int(14), window = int(15), dp = padded(d), lda = words(H * d), step = words(K * d);
  const across = words((KB / NR) * (NR * d + 16)), along = words((dp / NR) * (NR * KB + 16)), tile = words(QB * KB);
  const qT = scratch, oT = qT + across, qs = oT + across, os = qs + along, ks = os + along;
  const s = ks + along, g = s + tile, t = g + tile, sum = t + tile, dq = sum + words(QB * dp), stat = dq + words(QB * dp);
  const from = words((q0 * H + h) * d);
  const held = int(18) !== 0, ha = acrossOf(d), hb = alongOf(d);
  packQueries(held, ptr(4) + from, ptr(3) + from, lda, nq, d, qT, oT, qs, os);
  memory.copy(stat, ptr(8) + words(h * int(11) + q0), words(nq));
  dotRows(ptr(3) + from, ptr(7) + from, lda, nq, d, stat + words(KB));
  memory.fill(dq, 0, words(QB * dp));
  for (let j = window > 0 ? max(0, p0 - window + 1) / KB * KB : 0; j < p0 + nq; j += KB) {
    const nk = min(KB, p0 + nq - j), at = <usize>(base + j) * step + words(kv * d), shift = p0 - j;
    if (held) {
      heldKeys(ptr(5) + at, step, nk, 0, d, nq, shift, s, float(0));
      heldKeys(ptr(6) + at, step, nk, ha, d, nq, shift, g, 1);
    } else {
      scoresOfKeys(ptr(5) + at, step, nk, qT, d, nq, shift, s, float(0));
      scoresOfKeys(ptr(6) + at, step, nk, oT, d, nq, shift, g, 1);
    }
    gradColumns(base + j, nk, base + p0, nq, s, g, stat);
    if (held) {
      heldAdd(ptr(2) + at, step, s, nk, 2 * ha + hb, nq, shift, d);
      heldAdd(ptr(1) + at, step, g, nk, 2 * ha, nq, shift, d);
    } else {
      addBlock(ptr(2) + at, step, s, nk, os, nq, shift, d, dp, sum);
      addBlock(ptr(1) + at, step, g, nk, qs, nq, shift, d, dp, sum);
    }
    if (held) {
      holdPlain(ptr(5) + at, 0, step, nk, d, 2 * ha + 2 * hb, ks);
      // A chunk of t is multiplied whole, by zeros beyond the last key: those of t must be finite.
      if (nk < KB) memory.fill(g + words(nk * KB), 0, words((KB - nk) * KB));
      transposeTile(g, KB, nq, t);
      heldWeigh(t, nq, 2 * ha + 2 * hb, nk, shift, d, dq, words(dp));
    } else {
      packPlain(ptr(5) + at, 0, step, 0, nk, 0, d, ks, 0);
      transposeTile(g, nk, nq, t);
      addKeys(t, nq, ks, nk, shift, d, dq, dp);
    }
  }
  copyRows(ptr(0) + from, lda, dq, dp, nq, d);
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
