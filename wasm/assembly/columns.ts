// Operations along columns: sums over rows (bias and DoRA gradients), scaling, and DoRA's row norms.
import { bytesOf, decode } from "./decode";
import { float, int, ptr, words } from "./job";
import { accumulate } from "./norm";

const COLS: i32 = 64;
const ROWS: i32 = 8;
/** Columns of w decoded at a time in rowNorm; a multiple of every block. */
const STRIP: i32 = 1024;

/** out[j] += Σ_n x[n,j] for COLS columns. Arguments: out, x, N, D. */
export function colSum(u: i32, scratch: usize): void {
  const N = int(2), D = int(3), c0 = u * COLS, n = min(COLS, D - c0);
  memory.fill(scratch, 0, words(COLS));
  for (let r = 0; r < N; r++) {
    const x = ptr(1) + words(r * D + c0);
    let i = 0;
    for (; i + 4 <= n; i += 4) {
      v128.store(scratch + words(i), f32x4.add(v128.load(scratch + words(i)), v128.load(x + words(i))));
    }
    for (; i < n; i++) store<f32>(scratch + words(i), load<f32>(scratch + words(i)) + load<f32>(x + words(i)));
  }
  accumulate(ptr(0), scratch, c0, n);
}

/** out[j] += Σ_n a[n,j] · b[n,j] for COLS columns. Arguments: out, a, b, N, D. */
export function colDot(u: i32, scratch: usize): void {
  const N = int(3), D = int(4), c0 = u * COLS, n = min(COLS, D - c0);
  memory.fill(scratch, 0, words(COLS));
  for (let r = 0; r < N; r++) {
    const a = ptr(1) + words(r * D + c0), b = ptr(2) + words(r * D + c0);
    let i = 0;
    for (; i + 4 <= n; i += 4) {
      const p = f32x4.mul(v128.load(a + words(i)), v128.load(b + words(i)));
      v128.store(scratch + words(i), f32x4.add(v128.load(scratch + words(i)), p));
    }
    for (; i < n; i++) {
      const p = load<f32>(a + words(i)) * load<f32>(b + words(i));
      store<f32>(scratch + words(i), load<f32>(scratch + words(i)) + p);
    }
  }
  accumulate(ptr(0), scratch, c0, n);
}

/** out[n,j] = x[n,j] · s[j] for ROWS rows. Arguments: out, x, s, N, D. */
export function scaleCols(u: i32, _: usize): void {
  const N = int(3), D = int(4), end = min(N, (u + 1) * ROWS), s = ptr(2);
  for (let r = u * ROWS; r < end; r++) {
    const out = ptr(0) + words(r * D), x = ptr(1) + words(r * D);
    let i = 0;
    for (; i + 4 <= D; i += 4) v128.store(out + words(i), f32x4.mul(v128.load(x + words(i)), v128.load(s + words(i))));
    for (; i < D; i++) store<f32>(out + words(i), load<f32>(x + words(i)) * load<f32>(s + words(i)));
  }
}

/** out[o] = ‖w[o,:] + scale · b[o,:] · a‖ for ROWS rows. Arguments: out, w, w's type, a, b, O, I, R, bytes of w's row; scale. */
export function rowNorm(u: i32, scratch: usize): void {
  const type = int(2), a = ptr(3), O = int(5), I = int(6), R = int(7), end = min(O, (u + 1) * ROWS);
  for (let o = u * ROWS; o < end; o++) {
    const w = ptr(1) + <usize>o * int(8);
    let sum: f64 = 0;
    for (let c = 0; c < I; c += STRIP) {
      const n = min(STRIP, I - c);
      decode(type, w + bytesOf(type, c), scratch, n);
      for (let r = 0; r < R; r++) addScaled(scratch, a + words(r * I + c), n, float(0) * load<f32>(ptr(4) + words(o * R + r)));
      sum += squares(scratch, n);
    }
    store<f32>(ptr(0) + words(o), <f32>Math.sqrt(sum));
  }
}

function addScaled(y: usize, x: usize, n: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(y + words(i), f32x4.add(v128.load(y + words(i)), f32x4.mul(f, v128.load(x + words(i)))));
  }
  for (; i < n; i++) store<f32>(y + words(i), load<f32>(y + words(i)) + factor * load<f32>(x + words(i)));
}

/** Σ x² in f64, two lanes. */
export function squares(x: usize, n: i32): f64 {
  let a = f64x2.splat(0), b = f64x2.splat(0), i = 0;
  for (; i + 4 <= n; i += 4) {
    const v = v128.load(x + words(i));
    const p = f64x2.promote_low_f32x4(v), q = f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3));
    a = f64x2.add(a, f64x2.mul(p, p));
    b = f64x2.add(b, f64x2.mul(q, q));
  }
  a = f64x2.add(a, b);
  let s = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1);
  for (; i < n; i++) {
    const d = <f64>load<f32>(x + words(i));
    s += d * d;
  }
  return s;
}
