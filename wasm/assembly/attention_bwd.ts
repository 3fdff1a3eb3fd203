// The parts of attention's backward: p = e^(s - lse) and ds = p · (dOut·v - dOut·out) · scale, times 1 - (s/cap)² under a soft cap.
// attention_bwd_kernels.ts puts them together.
import { KB } from "./attention";
import { chunksOf, heldTile, holdPlain, holdTransposed, panelsOf } from "./held";
import { float, int, words } from "./job";
import { exp1, expDown, tanh1, tanhv } from "./math";
import { CHUNK, madd, MR, NR, ROWS, tileRows } from "./micro";
import { packPlain, packTransposed, panelBytes } from "./pack";

/** Writes rows of `sum` (dp floats apart) to `to` (ld bytes apart). */
export function copyRows(to: usize, ld: usize, sum: usize, dp: i32, rows: i32, d: i32): void {
  for (let r = 0; r < rows; r++, to += ld, sum += words(dp)) memory.copy(to, sum, words(d));
}

/**
 * to[r] = a[r] · b[r] for rows of d floats, `ld` bytes apart, summed in the order of a product's tile: a query that sees
 * one key gets dOut·v - dOut·out = 0 and not a rounding error.
 */
export function dotRows(a: usize, b: usize, ld: usize, rows: i32, d: i32, to: usize): void {
  for (let r = 0; r < rows; r += 4, a += 4 * ld, b += 4 * ld) {
    const last = <usize>(rows - 1 - r), l1 = min<usize>(1, last) * ld, l2 = min<usize>(2, last) * ld;
    const l3 = min<usize>(3, last) * ld;
    let sum = f32x4.splat(0);
    for (let i = 0; i < d; i++) {
      const x = a + words(i), y = b + words(i);
      const p = f32x4(load<f32>(x), load<f32>(x + l1), load<f32>(x + l2), load<f32>(x + l3));
      const q = f32x4(load<f32>(y), load<f32>(y + l1), load<f32>(y + l2), load<f32>(y + l3));
      sum = madd(p, q, sum);
    }
    v128.store(to + words(r), sum);
  }
}

/** One vector: p into s and ds into g, from raw scores in s and dOut·v in g. */
// @ts-ignore: decorator
@inline
export function grad4(s: usize, g: usize, lse: v128, mean: v128, cap: f32): void {
  let z = v128.load(s), f = f32x4.splat(float(0));
  if (cap > 0) {
    const t = tanhv(f32x4.mul(z, f32x4.splat(1 / cap)));
    z = f32x4.mul(t, f32x4.splat(cap));
    f = f32x4.mul(f, f32x4.sub(f32x4.splat(1), f32x4.mul(t, t)));
  }
  const p = expDown(f32x4.sub(z, lse));
  v128.store(s, p);
  v128.store(g, f32x4.mul(f32x4.mul(p, f32x4.sub(v128.load(g), mean)), f));
}

/** The same for one element. */
export function grad1(s: usize, g: usize, lse: f32, mean: f32, cap: f32): void {
  let z = load<f32>(s), f = float(0);
  if (cap > 0) {
    const t = tanh1(z * (1 / cap));
    z = t * cap;
    f *= 1 - t * t;
  }
  const p = exp1(z - lse);
  store<f32>(s, p);
  store<f32>(g, p * (load<f32>(g) - mean) * f);
}

/** Zeroes s and g outside lo..hi of a row of KB. */
// @ts-ignore: decorator
@inline
export function clear(s: usize, g: usize, lo: i32, hi: i32): void {
  if (lo > 0) {
    memory.fill(s, 0, words(lo));
    memory.fill(g, 0, words(lo));
  }
  if (hi < KB) {
    memory.fill(s + words(hi), 0, words(KB - hi));
    memory.fill(g + words(hi), 0, words(KB - hi));
  }
}

/** p and ds of every key (row) and query (column); a key is seen by the queries from itself to window - 1 later. */
export function gradColumns(k0: i32, rows: i32, q0: i32, nq: i32, s: usize, g: usize, stat: usize): void {
  const window = int(15), cap = float(1);
  for (let r = 0; r < rows; r++, s += words(KB), g += words(KB)) {
    const hi = window > 0 ? max(0, min(nq, k0 + r + window - q0)) : nq, lo = min(hi, max(0, k0 + r - q0));
    let i = lo;
    for (; i + 4 <= hi; i += 4) {
      grad4(s + words(i), g + words(i), v128.load(stat + words(i)), v128.load(stat + words(KB + i)), cap);
    }
    for (; i < hi; i++) {
      grad1(s + words(i), g + words(i), load<f32>(stat + words(i)), load<f32>(stat + words(KB + i)), cap);
    }
    clear(s, g, lo, hi);
  }
}

/** sum[rows, d] += w · panels; `shift` queries come before the first key: those columns of a row tile are zero. */
export function addTo(sum: usize, w: usize, rows: i32, panels: usize, nq: i32, shift: i32, d: i32, dp: i32): void {
  for (let n = 0; n < d; n += NR, panels += panelBytes(NR, nq)) {
    for (let m = 0; m < rows; m += MR) {
      const skip = min(nq - 1, max(0, m - shift));
      const from = w + words(m * KB + skip), to = sum + words(m * dp + n);
      tileRows(nq - skip, from, words(KB), rows - 1 - m, panels + words(skip * NR), to, words(dp), 1, true);
    }
  }
}

/** Structs of a block of KB rows of d, transposed or not. */
// @ts-ignore: decorator
@inline
export function acrossOf(d: i32): i32 {
  return chunksOf(d) * panelsOf(KB);
}
// @ts-ignore: decorator
@inline
export function alongOf(d: i32): i32 {
  return chunksOf(KB) * panelsOf(d);
}

/**
 * Queries and dOut of a block, transposed to qT and oT and not to qs and os; or held, one behind the other from struct 0 on, with qT as
 * scratch.
 */
export function packQueries(
  held: bool, q: usize, dOut: usize, lda: usize, nq: i32, d: i32, qT: usize, oT: usize, qs: usize, os: usize,
): void {
  if (held) {
    const across = acrossOf(d);
    holdTransposed(q, 0, lda, d, nq, 0, qT);
    holdTransposed(dOut, 0, lda, d, nq, across, qT);
    holdPlain(q, 0, lda, nq, d, 2 * across, qT);
    holdPlain(dOut, 0, lda, nq, d, 2 * across + alongOf(d), qT);
  } else {
    packTransposed(q, 0, lda, 0, d, 0, nq, qT, 0);
    packTransposed(dOut, 0, lda, 0, d, 0, nq, oT, 0);
    packPlain(q, 0, lda, 0, nq, 0, d, qs, 0);
    packPlain(dOut, 0, lda, 0, nq, 0, d, os, 0);
  }
}

/** s[keys, queries] = alpha · keys · block, without the panels whose queries all come before a tile's keys. */
export function heldKeys(keys: usize, step: usize, nk: i32, at: i32, d: i32, nq: i32, shift: i32, s: usize, alpha: f32): void {
  const panels = panelsOf(nq);
  for (let m = 0; m < nk; m += ROWS) {
    const first = max(0, m - shift) / NR, c = s + words(m * KB);
    if (first < panels) {
      heldTile(keys + <usize>m * step, step, nk - m, at, panels, 0, d, first, panels, c, words(KB), alpha, false);
    }
  }
}

/** to[rows, d] += w · a held block; `shift` queries come before the first key: those columns of a row tile are zero. */
export function heldAdd(to: usize, ld: usize, w: usize, rows: i32, at: i32, nq: i32, shift: i32, d: i32): void {
  const panels = panelsOf(d);
  for (let m = 0; m < rows; m += ROWS) {
    const k0 = min(nq - 1, max(0, m - shift)) / CHUNK * CHUNK, a = w + words(m * KB);
    heldTile(a, words(KB), rows - m, at, panels, k0, nq, 0, panels, to + <usize>m * ld, ld, 1, true);
  }
}
