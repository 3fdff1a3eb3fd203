// What is addressed by token: embedding rows and their gradient, rotary positions, cache writes.
import { decode } from "./decode";
import { scaleRow } from "./elementwise";
import { BAD_CACHE_ROW, BAD_ID, fail, float, int, ptr, words } from "./job";
import { cosSin } from "./trigonometry";

const ROWS: i32 = 8;
const COLS: i32 = 64;

/** out[n] = scale · table[ids[n]]. Arguments: out, table, type, ids, N, D, V, bytes of a row; scale. */
export function embed(u: i32, _: usize): void {
  const N = int(4), D = int(5), V = int(6), end = min(N, (u + 1) * ROWS);
  for (let n = u * ROWS; n < end; n++) {
    const id = load<i32>(ptr(3) + words(n)), out = ptr(0) + words(n * D);
    if (<u32>id >= <u32>V) return fail(BAD_ID, n, id);
    decode(int(2), ptr(1) + <usize>id * int(7), out, D);
    if (float(0) !== 1) scaleRow(out, out, D, float(0));
  }
}

/** dTable[ids[n]] += scale · dOut[n] in order of n, for COLS columns. Arguments: dTable, dOut, ids, N, D, V; scale. */
export function embedBwd(u: i32, _: usize): void {
  const N = int(3), D = int(4), V = int(5), c0 = u * COLS, c1 = min(D, c0 + COLS);
  const f = float(0), f4 = f32x4.splat(f);
  for (let n = 0; n < N; n++) {
    const id = load<i32>(ptr(2) + words(n));
    if (<u32>id >= <u32>V) return fail(BAD_ID, n, id);
    const to = ptr(0) + words(id * D), from = ptr(1) + words(n * D);
    let i = c0;
    for (; i + 4 <= c1; i += 4) {
      const at = words(i);
      v128.store(to + at, f32x4.add(v128.load(to + at), f32x4.mul(f4, v128.load(from + at))));
    }
    for (; i < c1; i++) store<f32>(to + words(i), load<f32>(to + words(i)) + f * load<f32>(from + words(i)));
  }
}

/** Rotates ROWS tokens. Arguments: x, pos, freqs, N, heads, d, half; sign, factor. */
export function rope(u: i32, scratch: usize): void {
  const N = int(3), heads = int(4), d = int(5), half = int(6), end = min(N, (u + 1) * ROWS);
  const cos = scratch, sin = scratch + words(half);
  for (let n = u * ROWS; n < end; n++) {
    cosSin(<f64>load<i32>(ptr(1) + words(n)), ptr(2), half, cos, sin, float(1), float(0) * float(1));
    for (let h = 0; h < heads; h++) rotate(ptr(0) + words((n * heads + h) * d), half, cos, sin);
  }
}

/** (a, b) -> (a·cos - b·sin, b·cos + a·sin), a and b being `half` apart. */
function rotate(x: usize, half: i32, cos: usize, sin: usize): void {
  const far = words(half);
  let i = 0;
  for (; i + 4 <= half; i += 4, x += 16, cos += 16, sin += 16) {
    const a = v128.load(x), b = v128.load(x + far), c = v128.load(cos), s = v128.load(sin);
    v128.store(x, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
    v128.store(x + far, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
  }
  for (; i < half; i++, x += 4, cos += 4, sin += 4) {
    const a = load<f32>(x), b = load<f32>(x + far), c = load<f32>(cos), s = load<f32>(sin);
    store<f32>(x, a * c - b * s);
    store<f32>(x + far, b * c + a * s);
  }
}

/** k and v rows into the caches. Arguments: kc, vc, k, v, seq, pos, N, floats of a row, S, L. */
export function cacheWrite(u: i32, _: usize): void {
  const N = int(6), row = int(7), S = int(8), L = int(9), end = min(N, (u + 1) * ROWS);
  for (let n = u * ROWS; n < end; n++) {
    const s = load<i32>(ptr(4) + words(n)), p = load<i32>(ptr(5) + words(n));
    if (<u32>s >= <u32>S) return fail(BAD_CACHE_ROW, n, s);
    if (<u32>p >= <u32>L) return fail(BAD_CACHE_ROW, n, p);
    const at = words((s * L + p) * row);
    memory.copy(ptr(0) + at, ptr(2) + words(n * row), words(row));
    memory.copy(ptr(1) + at, ptr(3) + words(n * row), words(row));
  }
}
