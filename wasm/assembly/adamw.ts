// The optimiser's side: sum of squares, clip factor, decoupled AdamW. Sums are taken in chunks of fixed size and added in
// order, in f64, so that they do not depend on the number of threads.
import { squares } from "./columns";
import { float, int, ptr, words } from "./job";

const CHUNK: i32 = 16384;

/** partial[u] = Σ g² of unit u, f64. Arguments: partial, g, n. */
export function sumSquares(u: i32, _: usize): void {
  const n = min(CHUNK, int(2) - u * CHUNK);
  store<f64>(ptr(0) + (<usize>u << 3), squares(ptr(1) + words(u * CHUNK), n));
}

/** out += Σ partial. Arguments: out, partial, count. One unit. */
export function sumPartials(_u: i32, _: usize): void {
  let s: f64 = 0;
  for (let i = 0; i < int(2); i++) s += load<f64>(ptr(1) + (<usize>i << 3));
  store<f32>(ptr(0), load<f32>(ptr(0)) + <f32>s);
}

/** hyper[7] = min(1, maxNorm / (√sumSq + 1e-6)), 1 when maxNorm is 0. Arguments: hyper, sumSq; maxNorm. One unit. */
export function clipFactor(_u: i32, _: usize): void {
  const norm = Math.sqrt(<f64>load<f32>(ptr(1))), most = <f64>float(0);
  store<f32>(ptr(0), most === 0 ? 1 : <f32>Math.min(1, most / (norm + 1e-6)), 28);
}

/** p, m, v in place (Loshchilov & Hutter 2019, torch's order of operations). Arguments: p, g, m, v, hyper, n. */
export function adamw(u: i32, _: usize): void {
  const hyper = ptr(4), n = min(CHUNK, int(5) - u * CHUNK), at = words(u * CHUNK);
  const lr = load<f32>(hyper), b1 = load<f32>(hyper, 4), b2 = load<f32>(hyper, 8), eps = load<f32>(hyper, 12);
  const keep: f32 = 1 - lr * load<f32>(hyper, 16), clip = load<f32>(hyper, 28);
  const stepSize = lr / load<f32>(hyper, 20), rootC2 = Mathf.sqrt(load<f32>(hyper, 24));
  let p = ptr(0) + at, g = ptr(1) + at, m = ptr(2) + at, v = ptr(3) + at, i = 0;
  const clip4 = f32x4.splat(clip), b14 = f32x4.splat(b1), a14 = f32x4.splat(1 - b1), b24 = f32x4.splat(b2);
  const a24 = f32x4.splat(1 - b2), eps4 = f32x4.splat(eps), keep4 = f32x4.splat(keep);
  const step4 = f32x4.splat(stepSize), root4 = f32x4.splat(rootC2);
  for (; i + 4 <= n; i += 4, p += 16, g += 16, m += 16, v += 16) {
    const d = f32x4.mul(v128.load(g), clip4);
    const mm = f32x4.add(f32x4.mul(b14, v128.load(m)), f32x4.mul(a14, d));
    const vv = f32x4.add(f32x4.mul(b24, v128.load(v)), f32x4.mul(a24, f32x4.mul(d, d)));
    v128.store(m, mm);
    v128.store(v, vv);
    const root = f32x4.add(f32x4.div(f32x4.sqrt(vv), root4), eps4);
    v128.store(p, f32x4.sub(f32x4.mul(v128.load(p), keep4), f32x4.div(f32x4.mul(step4, mm), root)));
  }
  for (; i < n; i++, p += 4, g += 4, m += 4, v += 4) {
    const d = load<f32>(g) * clip;
    const mm = b1 * load<f32>(m) + (1 - b1) * d;
    const vv = b2 * load<f32>(v) + (1 - b2) * (d * d);
    store<f32>(m, mm);
    store<f32>(v, vv);
    store<f32>(p, load<f32>(p) * keep - (stepSize * mm) / (Mathf.sqrt(vv) / rootC2 + eps));
  }
}
