// Attention of single queries over a cache: what decoding does. Unit u is one query of one head. Bound by reading the
// keys and values, which the heads of a group find in the second-level cache.
import { capScores, KB, rowExp, rowMax } from "./attention";
import { float, int, ptr, words } from "./job";
import { exp1, sum4 } from "./math";
import { madd } from "./micro";

/** Arguments: out, q, kc, vc, seq, pos, N, S, L, H, K, d, window; scale, softcap. Bounds have been checked. */
export function attentionFew(u: i32, scratch: usize): void {
  const L = int(8), H = int(9), K = int(10), d = int(11), window = int(12), n = u / H, h = u % H;
  const s = load<i32>(ptr(4) + words(n)), last = load<i32>(ptr(5) + words(n)), row = words(K * d);
  const first = window > 0 ? max(0, last - window + 1) : 0;
  const q = ptr(1) + words((n * H + h) * d), out = ptr(0) + words((n * H + h) * d);
  const base = <usize>(s * L) * row + words(h / (H / K) * d);
  let top: f32 = -1e30, sum: f32 = 0;
  memory.fill(out, 0, words(d));
  for (let j = first; j <= last; j += KB) {
    const nk = min(KB, last + 1 - j), at = base + <usize>j * row;
    scoresOf(q, ptr(2) + at, row, nk, d, scratch, float(0));
    if (float(1) > 0) capScores(scratch, nk, float(1));
    const next = max(top, rowMax(scratch, nk)), f = exp1(top - next);
    sum = sum * f + rowExp(scratch, nk, next);
    addValues(out, ptr(3) + at, row, nk, d, scratch, f);
    top = next;
  }
  const inverse: f32 = 1 / sum;
  for (let i = 0; i < d; i++) store<f32>(out + words(i), load<f32>(out + words(i)) * inverse);
}

/** s[j] = scale · q·k[j], four keys at a time. */
function scoresOf(q: usize, k: usize, row: usize, nk: i32, d: i32, s: usize, scale: f32): void {
  let j = 0;
  for (; j + 4 <= nk; j += 4, k += 4 * row) {
    let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), e = f32x4.splat(0), i = 0;
    for (; i + 4 <= d; i += 4) {
      const x = v128.load(q + words(i)), p = k + words(i);
      a = madd(x, v128.load(p), a);
      b = madd(x, v128.load(p + row), b);
      c = madd(x, v128.load(p + 2 * row), c);
      e = madd(x, v128.load(p + 3 * row), e);
    }
    // the four sums side by side: transpose by pairs and add
    const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
    const ce = f32x4.add(v128.shuffle<f32>(c, e, 0, 4, 1, 5), v128.shuffle<f32>(c, e, 2, 6, 3, 7));
    let sums = f32x4.add(v128.shuffle<f32>(ab, ce, 0, 1, 4, 5), v128.shuffle<f32>(ab, ce, 2, 3, 6, 7));
    for (; i < d; i++) {
      const p = k + words(i);
      const column = f32x4(load<f32>(p), load<f32>(p + row), load<f32>(p + 2 * row), load<f32>(p + 3 * row));
      sums = madd(v128.load_splat<f32>(q + words(i)), column, sums);
    }
    v128.store(s + words(j), f32x4.mul(sums, f32x4.splat(scale)));
  }
  for (; j < nk; j++, k += row) {
    let a = f32x4.splat(0), i = 0;
    for (; i + 4 <= d; i += 4) a = madd(v128.load(q + words(i)), v128.load(k + words(i)), a);
    let t = sum4(a);
    for (; i < d; i++) t += load<f32>(q + words(i)) * load<f32>(k + words(i));
    store<f32>(s + words(j), t * scale);
  }
}

/** out = f · out + Σ_j p[j] · v[j], sixteen features in registers at a time. */
function addValues(out: usize, v: usize, row: usize, nk: i32, d: i32, p: usize, f: f32): void {
  const f4 = f32x4.splat(f);
  let i = 0;
  for (; i + 16 <= d; i += 16, out += 64, v += 64) {
    let a = f32x4.mul(f4, v128.load(out)), b = f32x4.mul(f4, v128.load(out, 16));
    let c = f32x4.mul(f4, v128.load(out, 32)), e = f32x4.mul(f4, v128.load(out, 48));
    let x = v;
    for (let j = 0; j < nk; j++, x += row) {
      const w = v128.load_splat<f32>(p + words(j));
      a = madd(w, v128.load(x), a);
      b = madd(w, v128.load(x, 16), b);
      c = madd(w, v128.load(x, 32), c);
      e = madd(w, v128.load(x, 48), e);
    }
    v128.store(out, a);
    v128.store(out, b, 16);
    v128.store(out, c, 32);
    v128.store(out, e, 48);
  }
  for (; i < d; i++, out += 4, v += 4) {
    let a = f * load<f32>(out);
    for (let j = 0; j < nk; j++) a += load<f32>(p + words(j)) * load<f32>(v + <usize>j * row);
    store<f32>(out, a);
  }
}
