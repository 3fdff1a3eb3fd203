// Cosines and sines of rotary angles in f64, two at a time: an f32 angle would be off by 6e-8 · position.
import { words } from "./job";

// @ts-ignore: decorator
@inline
function poly(z: v128, p: v128, c: f64): v128 {
  return f64x2.add(f64x2.mul(p, z), f64x2.splat(c));
}

/**
 * cos[i] = c · cos(position · freqs[i]), sin[i] = s · sin(...) for i < n, as f32. The angle is reduced by π/2 in two
 * parts (exact for angles under 2^26); Taylor polynomials to r^13 on |r| ≤ π/4 leave 1e-12.
 */
export function cosSin(position: f64, freqs: usize, n: i32, cos: usize, sin: usize, c: f32, s: f32): void {
  for (let i = 0; i < n; i += 2) {
    const f0 = <f64>load<f32>(freqs + words(i)), f1 = i + 1 < n ? <f64>load<f32>(freqs + words(i), 4) : 0;
    const x = f64x2.mul(f64x2.splat(position), f64x2.replace_lane(f64x2.splat(f0), 1, f1));
    const k = f64x2.nearest(f64x2.mul(x, f64x2.splat(0.63661977236758134)));
    let r = f64x2.sub(x, f64x2.mul(k, f64x2.splat(1.57079632673412561)));
    r = f64x2.sub(r, f64x2.mul(k, f64x2.splat(6.07710050650619224e-11)));
    const z = f64x2.mul(r, r);
    let sp = poly(z, f64x2.splat(1.6059043836821613e-10), -2.5052108385441720e-8);
    sp = poly(z, sp, 2.7557319223985893e-6);
    sp = poly(z, sp, -1.9841269841269841e-4);
    sp = poly(z, sp, 8.3333333333333332e-3);
    sp = poly(z, sp, -1.6666666666666666e-1);
    const sr = f64x2.add(r, f64x2.mul(f64x2.mul(sp, z), r));
    let cp = poly(z, f64x2.splat(2.0876756987868100e-9), -2.7557319223985888e-7);
    cp = poly(z, cp, 2.4801587301587302e-5);
    cp = poly(z, cp, -1.3888888888888889e-3);
    cp = poly(z, cp, 4.1666666666666664e-2);
    cp = poly(z, cp, -0.5);
    const cr = f64x2.add(f64x2.mul(cp, z), f64x2.splat(1));
    place(<i64>f64x2.extract_lane(k, 0), f64x2.extract_lane(sr, 0), f64x2.extract_lane(cr, 0), cos, sin, i, c, s);
    if (i + 1 < n) {
      place(<i64>f64x2.extract_lane(k, 1), f64x2.extract_lane(sr, 1), f64x2.extract_lane(cr, 1), cos, sin, i + 1, c, s);
    }
  }
}

/** Turns sine and cosine of the rest by k quarter turns. */
// @ts-ignore: decorator
@inline
function place(k: i64, sr: f64, cr: f64, cos: usize, sin: usize, i: i32, c: f32, s: f32): void {
  const q = <i32>(k & 3);
  const co = q & 1 ? sr : cr, si = q & 1 ? cr : sr;
  store<f32>(cos + words(i), c * <f32>(q === 1 || q === 2 ? -co : co));
  store<f32>(sin + words(i), s * <f32>(q >= 2 ? -si : si));
}
