// Causal attention in tiles (Dao et al. 2022, "FlashAttention": online softmax, no S×S buffer), over packed sequences and
// over a cache. A block is up to QB consecutive positions of one sequence (attention_blocks.ts); unit u is a block of one
// kv head and up to SHARE of its query heads, which meet each packed tile of keys and values together.
// Bound by arithmetic: 4·d·keys a query and head, 2 products and one exponential a score.
import { chunksOf, heldTile, holdPlain, holdTransposed, panelsOf } from "./held";
import { float, int, ptr, words } from "./job";
import { exp1, expDown, max4, sum4, tanh1, tanhv } from "./math";
import { MR, NR, ROWS, tileRows } from "./micro";
import { packPlain, packTransposed, panelBytes } from "./pack";

/** Queries of a block and keys of a tile; ../attention.ts has the same numbers. */
export const QB: i32 = 64;
export const KB: i32 = 64;

/** c[rows, cols] = alpha · a · panels (+ c), over k; c and its rows are padded to whole tiles. */
// @ts-ignore: decorator
@inline
export function product(a: usize, lda: usize, rows: i32, panels: usize, k: i32, cols: i32, c: usize, ldc: usize, alpha: f32, add: bool): void {
  for (let n = 0; n < cols; n += NR, panels += panelBytes(NR, k)) {
    for (let m = 0; m < rows; m += MR) {
      tileRows(k, a + <usize>m * lda, lda, rows - 1 - m, panels, c + <usize>m * ldc + words(n), ldc, alpha, add);
    }
  }
}

/** d rounded up to whole panels of any kernel. */
// @ts-ignore: decorator
@inline
export function padded(d: i32): i32 {
  return (d + 15) & ~15;
}

// Arguments: out, lse or 0, q, k, v, blocks, count, N, H, K, d, window, SHARE, floats a key row (K·d), whether keys and values
// are held in structs; scale, softcap.

export function attention(u: i32, scratch: usize): void {
  const N = int(7), H = int(8), K = int(9), d = int(10), share = int(12), G = H / K;
  const parts = (G + share - 1) / share, slice = u / int(6), block = ptr(5) + (<usize>(int(6) - 1 - u % int(6)) << 4);
  const kv = slice / parts, g0 = slice % parts * share, heads = min(share, G - g0);
  const n0 = load<i32>(block), rows = load<i32>(block, 4), base = load<i32>(block, 8), p0 = load<i32>(block, 12);
  const h0 = kv * G + g0;
  if (base < 0) return outside(n0, rows, h0, heads);
  const dp = padded(d), step = words(int(13));
  const keys = scratch, values = keys + words((KB / NR) * (NR * d + 16)), s = values + words((dp / NR) * (NR * KB + 16));
  const o = s + words(QB * KB), stat = o + words(heads * QB * dp);
  memory.fill(o, 0, words(heads * QB * dp));
  for (let r = 0; r < heads * QB; r++) {
    store<f32>(stat + words(2 * r), -1e30);
    store<f32>(stat + words(2 * r), 0, 4);
  }
  const end = p0 + rows, window = int(11), lda = words(H * d), held = int(14) !== 0, behind = chunksOf(d) * panelsOf(KB);
  for (let j = window > 0 ? max(0, p0 - window + 1) : 0; j < end; j += KB) {
    const nk = min(KB, end - j), at = <usize>(base + j) * step + words(kv * d);
    if (held) {
      holdTransposed(ptr(3) + at, 0, step, d, nk, 0, keys);
      holdPlain(ptr(4) + at, 0, step, nk, d, behind, keys);
    } else {
      packTransposed(ptr(3) + at, 0, step, 0, d, 0, nk, keys, 0);
      packPlain(ptr(4) + at, 0, step, 0, nk, 0, d, values, 0);
    }
    for (let g = 0; g < heads; g++) {
      const q = ptr(2) + words((n0 * H + h0 + g) * d), og = o + words(g * QB * dp);
      if (held) heldScores(q, lda, rows, d, nk, p0 - j, s);
      else scores(q, lda, rows, keys, d, nk, p0 - j, s);
      softmax(s, rows, nk, p0 - j, window, float(1), og, dp, stat + words(2 * g * QB));
      if (held) heldWeigh(s, rows, behind, nk, p0 - j, d, og, words(dp));
      else weigh(s, rows, values, nk, p0 - j, d, og, words(dp));
    }
  }
  for (let g = 0; g < heads; g++) finish(n0, rows, h0 + g, o + words(g * QB * dp), dp, stat + words(2 * g * QB), N, H, d);
}

/** Rows outside every sequence. */
function outside(n0: i32, rows: i32, h0: i32, heads: i32): void {
  for (let n = n0; n < n0 + rows; n++) {
    memory.fill(ptr(0) + words((n * int(8) + h0) * int(10)), 0, words(heads * int(10)));
    if (ptr(1)) { for (let h = h0; h < h0 + heads; h++) store<f32>(ptr(1) + words(h * int(7) + n), 0); }
  }
}

/** s[rows, nk] = scale · q · keysᵀ, without the tiles that the mask removes. `shift` is query 0's place among the keys. */
// @ts-ignore: decorator
@inline
function scores(q: usize, lda: usize, rows: i32, keys: usize, d: i32, nk: i32, shift: i32, s: usize): void {
  for (let n = 0; n < nk; n += NR, keys += panelBytes(NR, d)) {
    const first = max(0, n - shift) / MR * MR;
    for (let m = first; m < rows; m += MR) {
      tileRows(d, q + <usize>m * lda, lda, rows - 1 - m, keys, s + words(m * KB + n), words(KB), float(0), false);
    }
  }
}

/** The same over held keys. */
function heldScores(q: usize, lda: usize, rows: i32, d: i32, nk: i32, shift: i32, s: usize): void {
  const panels = panelsOf(nk);
  for (let m = 0; m < rows; m += ROWS) {
    const seen = m + ROWS + shift;
    if (seen <= 0) continue;
    const a = q + <usize>m * lda, c = s + words(m * KB);
    heldTile(a, lda, rows - m, 0, panels, 0, d, 0, min(panels, panelsOf(seen)), c, words(KB), float(0), false);
  }
}

/** Scores to weights e^(s - top), row by row; what was summed so far is scaled to the new top. */
function softmax(s: usize, rows: i32, nk: i32, shift: i32, window: i32, cap: f32, o: usize, dp: i32, stat: usize): void {
  for (let r = 0; r < rows; r++, s += words(KB), stat += 8) {
    const hi = min(nk, r + shift + 1), lo = window > 0 ? max(0, r + shift + 1 - window) : 0;
    if (hi <= lo) {
      memory.fill(s, 0, words(KB));
      continue;
    }
    if (cap > 0) capScores(s + words(lo), hi - lo, cap);
    const before = load<f32>(stat), top = max(before, rowMax(s + words(lo), hi - lo));
    const sum = rowExp(s + words(lo), hi - lo, top);
    if (lo > 0) memory.fill(s, 0, words(lo));
    if (hi < KB) memory.fill(s + words(hi), 0, words(KB - hi));
    const f: f32 = before === top ? 1 : exp1(before - top);
    store<f32>(stat, top);
    store<f32>(stat, load<f32>(stat, 4) * f + sum, 4);
    if (f !== 1) {
      const f4 = f32x4.splat(f), row = o + words(r * dp);
      for (let i = 0; i < dp; i += 4) v128.store(row + words(i), f32x4.mul(v128.load(row + words(i)), f4));
    }
  }
}

/** z = cap · tanh(z / cap) */
export function capScores(z: usize, n: i32, cap: f32): void {
  const c = f32x4.splat(cap), r = f32x4.splat(1 / cap);
  let i = 0;
  for (; i + 4 <= n; i += 4, z += 16) v128.store(z, f32x4.mul(c, tanhv(f32x4.mul(v128.load(z), r))));
  for (; i < n; i++, z += 4) store<f32>(z, cap * tanh1(load<f32>(z) * (1 / cap)));
}

export function rowMax(z: usize, n: i32): f32 {
  let m = f32x4.splat(-Infinity), i = 0;
  for (; i + 4 <= n; i += 4, z += 16) m = f32x4.pmax(m, v128.load(z));
  let top = max4(m);
  for (; i < n; i++, z += 4) top = max(top, load<f32>(z));
  return top;
}

/** z = e^(z - top); returns the sum. */
export function rowExp(z: usize, n: i32, top: f32): f32 {
  const t = f32x4.splat(top);
  let sum = f32x4.splat(0), i = 0;
  for (; i + 4 <= n; i += 4, z += 16) {
    const e = expDown(f32x4.sub(v128.load(z), t));
    v128.store(z, e);
    sum = f32x4.add(sum, e);
  }
  let total = sum4(sum);
  for (; i < n; i++, z += 4) {
    const e = exp1(load<f32>(z) - top);
    store<f32>(z, e);
    total += e;
  }
  return total;
}

/** o[rows, d] += s · values; a row tile stops at its last query's own key. */
// @ts-ignore: decorator
@inline
function weigh(s: usize, rows: i32, values: usize, nk: i32, shift: i32, d: i32, o: usize, ldo: usize): void {
  for (let n = 0; n < d; n += NR, values += panelBytes(NR, nk)) {
    for (let m = 0; m < rows; m += MR) {
      const k = min(nk, m + MR + shift);
      if (k <= 0) continue;
      tileRows(k, s + words(m * KB), words(KB), rows - 1 - m, values, o + <usize>m * ldo + words(n), ldo, 1, true);
    }
  }
}

/** The same over values held from struct `at` on; also ds · keys. What follows a row's own key is zero. */
export function heldWeigh(s: usize, rows: i32, at: i32, nk: i32, shift: i32, d: i32, o: usize, ldo: usize): void {
  for (let m = 0; m < rows; m += ROWS) {
    const k = min(nk, m + ROWS + shift), a = s + words(m * KB);
    if (k > 0) heldTile(a, words(KB), rows - m, at, panelsOf(d), 0, k, 0, panelsOf(d), o + <usize>m * ldo, ldo, 1, true);
  }
}

/** out = o / sum and lse = top + ln sum. */
function finish(n0: i32, rows: i32, h: i32, o: usize, dp: i32, stat: usize, N: i32, H: i32, d: i32): void {
  for (let r = 0; r < rows; r++, o += words(dp), stat += 8) {
    const sum = load<f32>(stat, 4), f = f32x4.splat(1 / sum), out = ptr(0) + words(((n0 + r) * H + h) * d);
    let i = 0;
    for (; i + 4 <= d; i += 4) v128.store(out + words(i), f32x4.mul(v128.load(o + words(i)), f));
    for (; i < d; i++) store<f32>(out + words(i), load<f32>(o + words(i)) * (1 / sum));
    if (ptr(1)) store<f32>(ptr(1) + words(h * N + n0 + r), load<f32>(stat) + <f32>Math.log(sum));
  }
}
