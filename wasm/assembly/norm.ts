// RMS and layer norm over the last axis. Unit u is ROWS rows, or COLS columns where weights' gradients are summed.
// Bound by memory: x is read, out written; the backward reads dOut, x, dx and writes dx.
import { decode } from "./decode";
import { float, int, ptr, words } from "./job";
import { sum4 } from "./math";

const ROWS: i32 = 8;
const COLS: i32 = 64;

/** Σ (x - mean)² */
function spread(x: usize, D: i32, mean: f32): f32 {
  const m = f32x4.splat(mean);
  let a = f32x4.splat(0), b = f32x4.splat(0), i = 0;
  for (; i + 8 <= D; i += 8) {
    const p = f32x4.sub(v128.load(x + words(i)), m), q = f32x4.sub(v128.load(x + words(i), 16), m);
    a = f32x4.add(a, f32x4.mul(p, p));
    b = f32x4.add(b, f32x4.mul(q, q));
  }
  let s = sum4(f32x4.add(a, b));
  for (; i < D; i++) {
    const d = load<f32>(x + words(i)) - mean;
    s += d * d;
  }
  return s;
}

function total(x: usize, D: i32): f32 {
  let a = f32x4.splat(0), i = 0;
  for (; i + 4 <= D; i += 4) a = f32x4.add(a, v128.load(x + words(i)));
  let s = sum4(a);
  for (; i < D; i++) s += load<f32>(x + words(i));
  return s;
}

/** w as f32 (decoded into `scratch` where it is not), plus one for gemma. */
function weights(w: usize, type: i32, D: i32, plusOne: bool, scratch: usize): usize {
  if (type === 0 && !plusOne) return w;
  decode(type, w, scratch, D);
  if (plusOne) { for (let i = 0; i < D; i++) store<f32>(scratch + words(i), load<f32>(scratch + words(i)) + 1); }
  return scratch;
}

/** Arguments: out, stat, x, w, w's type, b or 0, b's type, N, D, layer, plusOne; eps. */
export function norm(u: i32, scratch: usize): void {
  const N = int(7), D = int(8), layer = int(9);
  const w = weights(ptr(3), int(4), D, int(10) !== 0, scratch);
  const b = ptr(5) ? weights(ptr(5), int(6), D, false, scratch + words(D)) : 0;
  const end = min(N, (u + 1) * ROWS);
  for (let n = u * ROWS; n < end; n++) {
    const x = ptr(2) + words(n * D), out = ptr(0) + words(n * D);
    const mean: f32 = layer ? total(x, D) / <f32>D : 0;
    const rstd: f32 = 1 / Mathf.sqrt(spread(x, D, mean) / <f32>D + float(0));
    store<f32>(ptr(1) + words(2 * n), mean);
    store<f32>(ptr(1) + words(2 * n), rstd, 4);
    const m = f32x4.splat(mean), r = f32x4.splat(rstd);
    let i = 0;
    for (; i + 4 <= D; i += 4) {
      const at = words(i);
      let y = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(x + at), m), r), v128.load(w + at));
      if (b) y = f32x4.add(y, v128.load(b + at));
      v128.store(out + at, y);
    }
    for (; i < D; i++) {
      const at = words(i);
      let y = (load<f32>(x + at) - mean) * rstd * load<f32>(w + at);
      if (b) y += load<f32>(b + at);
      store<f32>(out + at, y);
    }
  }
}

/** dx += rstd · (g - [mean g] - x̂ · mean(g·x̂)), g = dOut · w. Arguments: dx, dOut, x, w, w's type, stat, N, D, layer, plusOne. */
export function normBwd(u: i32, scratch: usize): void {
  const N = int(6), D = int(7), layer = int(8);
  const w = weights(ptr(3), int(4), D, int(9) !== 0, scratch);
  const end = min(N, (u + 1) * ROWS);
  for (let n = u * ROWS; n < end; n++) normRowBwd(n, D, w, layer);
}

function normRowBwd(n: i32, D: i32, w: usize, layer: i32): void {
  const dx = ptr(0) + words(n * D), dOut = ptr(1) + words(n * D), x = ptr(2) + words(n * D);
  const mean = load<f32>(ptr(5) + words(2 * n)), rstd = load<f32>(ptr(5) + words(2 * n), 4);
  const m = f32x4.splat(mean), r = f32x4.splat(rstd);
  let g4 = f32x4.splat(0), gx4 = f32x4.splat(0), i = 0;
  for (; i + 4 <= D; i += 4) {
    const at = words(i);
    const g = f32x4.mul(v128.load(dOut + at), v128.load(w + at));
    g4 = f32x4.add(g4, g);
    gx4 = f32x4.add(gx4, f32x4.mul(g, f32x4.mul(f32x4.sub(v128.load(x + at), m), r)));
  }
  let sg = sum4(g4), sgx = sum4(gx4);
  for (; i < D; i++) {
    const at = words(i);
    const g = load<f32>(dOut + at) * load<f32>(w + at);
    sg += g;
    sgx += g * ((load<f32>(x + at) - mean) * rstd);
  }
  sg = layer ? sg / <f32>D : 0;
  sgx /= <f32>D;
  const s4 = f32x4.splat(sg), sx4 = f32x4.splat(sgx);
  for (i = 0; i + 4 <= D; i += 4) {
    const at = words(i);
    const g = f32x4.mul(v128.load(dOut + at), v128.load(w + at));
    const hat = f32x4.mul(f32x4.sub(v128.load(x + at), m), r);
    const d = f32x4.mul(r, f32x4.sub(f32x4.sub(g, s4), f32x4.mul(hat, sx4)));
    v128.store(dx + at, f32x4.add(v128.load(dx + at), d));
  }
  for (; i < D; i++) {
    const at = words(i);
    const hat = (load<f32>(x + at) - mean) * rstd;
    const d = rstd * (load<f32>(dOut + at) * load<f32>(w + at) - sg - hat * sgx);
    store<f32>(dx + at, load<f32>(dx + at) + d);
  }
}

/** dw += Σ_n dOut · x̂ and db += Σ_n dOut, for COLS columns. Arguments: dw or 0, db or 0, dOut, x, stat, N, D. */
export function normWeightsBwd(u: i32, scratch: usize): void {
  const N = int(5), D = int(6), c0 = u * COLS, n = min(COLS, D - c0);
  const sw = scratch, sb = scratch + words(COLS);
  memory.fill(scratch, 0, words(2 * COLS));
  for (let r = 0; r < N; r++) {
    const dOut = ptr(2) + words(r * D + c0), x = ptr(3) + words(r * D + c0);
    const mean = load<f32>(ptr(4) + words(2 * r)), rstd = load<f32>(ptr(4) + words(2 * r), 4);
    for (let i = 0; i < n; i++) {
      const d = load<f32>(dOut + words(i));
      store<f32>(sw + words(i), load<f32>(sw + words(i)) + d * ((load<f32>(x + words(i)) - mean) * rstd));
      store<f32>(sb + words(i), load<f32>(sb + words(i)) + d);
    }
  }
  accumulate(ptr(0), sw, c0, n);
  accumulate(ptr(1), sb, c0, n);
}

/** out[c0 + i] += sum[i] where there is an out. */
export function accumulate(out: usize, sum: usize, c0: i32, n: i32): void {
  if (!out) return;
  for (let i = 0; i < n; i++) {
    const at = out + words(c0 + i);
    store<f32>(at, load<f32>(at) + load<f32>(sum + words(i)));
  }
}
