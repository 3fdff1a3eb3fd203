// Causal attention over packed sequences, forward and backward, and over a cache. First version: one query at a time.
import { BAD_CACHE_ROW, BAD_SEQUENCES, fail, float, int, ptr, words } from "./job";
import { dot } from "./matmul";
import { exp1, tanh1 } from "./math";

/** Row n's sequence as first row << 32 | end; -1 when it lies outside all. */
function sequenceOf(cu: usize, S: i32, n: i32): i32 {
  for (let s = 0; s < S; s++) {
    if (n < load<i32>(cu + words(s + 1))) return n < load<i32>(cu + words(s)) ? -1 : s;
  }
  return -1;
}

// @ts-ignore: decorator
@inline
function axpy(y: usize, x: usize, n: i32, f: f32): void {
  const f4 = f32x4.splat(f);
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(y + words(i), f32x4.add(v128.load(y + words(i)), f32x4.mul(f4, v128.load(x + words(i)))));
  for (; i < n; i++) store<f32>(y + words(i), load<f32>(y + words(i)) + f * load<f32>(x + words(i)));
}

// @ts-ignore: decorator
@inline
function cap(s: f32, softcap: f32): f32 {
  return softcap > 0 ? softcap * tanh1(s / softcap) : s;
}

/** One query over `count` keys `step` bytes apart; returns the log-sum-exp. */
function attend(out: usize, q: usize, k: usize, v: usize, step: usize, count: i32, d: i32, scale: f32, softcap: f32): f32 {
  memory.fill(out, 0, words(d));
  let top: f32 = -Infinity, sum: f32 = 0;
  for (let j = 0; j < count; j++, k += step, v += step) {
    const s = cap(scale * dot(q, k, d), softcap);
    if (s > top) {
      const f = exp1(top - s);
      for (let i = 0; i < d; i++) store<f32>(out + words(i), load<f32>(out + words(i)) * f);
      sum *= f;
      top = s;
    }
    const p = exp1(s - top);
    sum += p;
    axpy(out, v, d, p);
  }
  for (let i = 0; i < d; i++) store<f32>(out + words(i), load<f32>(out + words(i)) / sum);
  return top + <f32>Math.log(sum);
}

/** Arguments: out, lse, q, k, v, cu, N, S, H, K, d, window; scale, softcap. Unit u is one query. */
export function attention(n: i32, _: usize): void {
  const N = int(6), H = int(8), K = int(9), d = int(10), window = int(11), cu = ptr(5);
  const s = sequenceOf(cu, int(7), n);
  if (s < 0) {
    memory.fill(ptr(0) + words(n * H * d), 0, words(H * d));
    for (let h = 0; h < H; h++) store<f32>(ptr(1) + words(h * N + n), 0);
    return;
  }
  let first = load<i32>(cu + words(s));
  if (window > 0) first = max(first, n - window + 1);
  for (let h = 0; h < H; h++) {
    const at = words((n * H + h) * d), kv = words((first * K + h / (H / K)) * d);
    const l = attend(ptr(0) + at, ptr(2) + at, ptr(3) + kv, ptr(4) + kv, words(K * d), n - first + 1, d, float(0), float(1));
    store<f32>(ptr(1) + words(h * N + n), l);
  }
}

// Arguments of both: dq, dk, dv, dOut, q, k, v, out, lse, cu, N, S, H, K, d, window; scale, softcap.

/** ds of one pair, and p in `pair`. */
// @ts-ignore: decorator
@inline
function pairGrad(q: usize, k: usize, dOut: usize, v: usize, d: i32, lse: f32, mean: f32, pair: usize): f32 {
  const raw = float(0) * dot(q, k, d), cp = float(1);
  let s = raw, slope: f32 = 1;
  if (cp > 0) {
    const t = tanh1(raw / cp);
    s = cp * t;
    slope = 1 - t * t;
  }
  const p = exp1(s - lse);
  store<f32>(pair, p);
  return p * (dot(dOut, v, d) - mean) * slope * float(0);
}

export function attentionBwdQ(n: i32, scratch: usize): void {
  const N = int(10), H = int(12), K = int(13), d = int(14), window = int(15), cu = ptr(9);
  const s = sequenceOf(cu, int(11), n);
  memory.fill(ptr(0) + words(n * H * d), 0, words(H * d));
  if (s < 0) return;
  let first = load<i32>(cu + words(s));
  if (window > 0) first = max(first, n - window + 1);
  for (let h = 0; h < H; h++) {
    const at = words((n * H + h) * d), lse = load<f32>(ptr(8) + words(h * N + n));
    const mean = dot(ptr(3) + at, ptr(7) + at, d);
    for (let j = first; j <= n; j++) {
      const kv = words((j * K + h / (H / K)) * d);
      const ds = pairGrad(ptr(4) + at, ptr(5) + kv, ptr(3) + at, ptr(6) + kv, d, lse, mean, scratch);
      axpy(ptr(0) + at, ptr(5) + kv, d, ds);
    }
  }
}

export function attentionBwdKV(j: i32, scratch: usize): void {
  const N = int(10), H = int(12), K = int(13), d = int(14), window = int(15), cu = ptr(9);
  const s = sequenceOf(cu, int(11), j);
  memory.fill(ptr(1) + words(j * K * d), 0, words(K * d));
  memory.fill(ptr(2) + words(j * K * d), 0, words(K * d));
  if (s < 0) return;
  let end = load<i32>(cu + words(s + 1));
  if (window > 0) end = min(end, j + window);
  for (let h = 0; h < H; h++) {
    const kv = words((j * K + h / (H / K)) * d);
    for (let n = j; n < end; n++) {
      const at = words((n * H + h) * d), lse = load<f32>(ptr(8) + words(h * N + n));
      const mean = dot(ptr(3) + at, ptr(7) + at, d);
      const ds = pairGrad(ptr(4) + at, ptr(5) + kv, ptr(3) + at, ptr(6) + kv, d, lse, mean, scratch);
      axpy(ptr(1) + kv, ptr(4) + at, d, ds);
      axpy(ptr(2) + kv, ptr(3) + at, d, load<f32>(scratch));
    }
  }
}

/** One unit: cu climbs from 0 or more to at most N in steps of at most maxLen. Arguments: cu, S, N, maxLen. */
export function checkSequences(_u: i32, _: usize): void {
  const S = int(1), N = int(2), maxLen = int(3);
  for (let s = 0; s <= S; s++) {
    const at = load<i32>(ptr(0) + words(s)), before = s ? load<i32>(ptr(0) + words(s - 1)) : 0;
    if (at < before || at > N || (s && at - before > maxLen)) return fail(BAD_SEQUENCES, s, at);
  }
}

/** Arguments: out, q, kc, vc, seq, pos, N, S, L, H, K, d, window; scale, softcap. Unit u is one query. */
export function attentionCached(n: i32, _: usize): void {
  const S = int(7), L = int(8), H = int(9), K = int(10), d = int(11), window = int(12);
  const s = load<i32>(ptr(4) + words(n)), p = load<i32>(ptr(5) + words(n));
  if (<u32>s >= <u32>S) return fail(BAD_CACHE_ROW, n, s);
  if (<u32>p >= <u32>L) return fail(BAD_CACHE_ROW, n, p);
  const first = window > 0 ? max(0, p - window + 1) : 0;
  for (let h = 0; h < H; h++) {
    const at = words((n * H + h) * d), kv = words(((s * L + first) * K + h / (H / K)) * d);
    attend(ptr(0) + at, ptr(1) + at, ptr(2) + kv, ptr(3) + kv, words(K * d), p - first + 1, d, float(0), float(1));
  }
}
