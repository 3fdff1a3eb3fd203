// exp, tanh, erf and sin/cos on vectors. Polynomials and their coefficients: S. Moshier's Cephes library (netlib.org/
// cephes, single/expf.c, tanhf.c, ndtrf.c); each is within 2e-7 relative of the exact function (tests/wasm/math_test.ts),
// f32's own rounding being 6e-8.
import { madd } from "./micro";

// @ts-ignore: decorator
@inline
function splat(x: f32): v128 {
  return f32x4.splat(x);
}

/** 2^n · e^r for |r| ≤ ln 2 / 2, x = n · ln 2 + r. */
// @ts-ignore: decorator
@inline
function expOf(x: v128): v128 {
  const n = f32x4.nearest(f32x4.mul(x, splat(1.44269504088896341)));
  // ln 2 in two parts, the first exact in few bits
  let r = madd(n, splat(-0.693359375), x);
  r = madd(n, splat(2.12194440e-4), r);
  let p = madd(splat(1.9875691500e-4), r, splat(1.3981999507e-3));
  p = madd(p, r, splat(8.3334519073e-3));
  p = madd(p, r, splat(4.1665795894e-2));
  p = madd(p, r, splat(1.6666665459e-1));
  p = madd(p, r, splat(5.0000001201e-1));
  p = madd(p, f32x4.mul(r, r), f32x4.add(r, splat(1)));
  const scale = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return f32x4.mul(p, scale);
}

/** e^x; 0 below -87.34 (the smallest normal number), infinity above 88.37, NaN stays. */
// @ts-ignore: decorator
@inline
export function expv(x: v128): v128 {
  const low = f32x4.lt(x, splat(-87.3365478515625)), high = f32x4.gt(x, splat(88.3762626647949));
  const y = expOf(f32x4.pmin(f32x4.pmax(x, splat(-87.3365478515625)), splat(88.3762626647949)));
  return v128.bitselect(splat(Infinity), v128.andnot(y, low), high);
}

/** e^x for x that is at most 88 or NaN: a score less the largest one. The same bits as `expv`. */
// @ts-ignore: decorator
@inline
export function expDown(x: v128): v128 {
  const low = f32x4.lt(x, splat(-87.3365478515625));
  return v128.andnot(expOf(f32x4.pmax(x, splat(-87.3365478515625))), low);
}

/** tanh x: an odd polynomial below 0.625, 1 - 2/(e^2x + 1) above. */
// @ts-ignore: decorator
@inline
export function tanhv(x: v128): v128 {
  const a = f32x4.abs(x);
  const z = f32x4.mul(x, x);
  let p = madd(splat(-5.70498872745e-3), z, splat(2.06390887954e-2));
  p = madd(p, z, splat(-5.37397155531e-2));
  p = madd(p, z, splat(1.33314422036e-1));
  p = madd(p, z, splat(-3.33332819422e-1));
  const small = madd(f32x4.mul(p, z), x, x);
  const e = expv(f32x4.add(a, a));
  const big = f32x4.sub(splat(1), f32x4.div(splat(2), f32x4.add(e, splat(1))));
  const signed = v128.or(big, v128.and(x, f32x4.splat(-0.0)));
  return v128.bitselect(small, signed, f32x4.lt(a, splat(0.625)));
}

/** erf x for |x| < 1. */
// @ts-ignore: decorator
@inline
function erfSmall(x: v128): v128 {
  const z = f32x4.mul(x, x);
  let p = madd(splat(7.853861353153693e-5), z, splat(-8.010193625184903e-4));
  p = madd(p, z, splat(5.188327685732524e-3));
  p = madd(p, z, splat(-2.685381193529856e-2));
  p = madd(p, z, splat(1.128358514861418e-1));
  p = madd(p, z, splat(-3.761262582423300e-1));
  p = madd(p, z, splat(1.128379165726710));
  return f32x4.mul(p, x);
}

/** 1 - erf a for a >= 1: e^(-a²)/a times a polynomial in 1/a², one below 2 and one above. */
// @ts-ignore: decorator
@inline
function erfcBig(a: v128): v128 {
  const q = f32x4.div(splat(1), a);
  const y = f32x4.mul(q, q);
  let p = madd(splat(2.326819970068386e-2), y, splat(-1.387039388740657e-1));
  p = madd(p, y, splat(3.687424674597105e-1));
  p = madd(p, y, splat(-5.824733027278666e-1));
  p = madd(p, y, splat(6.210004621745983e-1));
  p = madd(p, y, splat(-4.944515323274145e-1));
  p = madd(p, y, splat(3.404879937665872e-1));
  p = madd(p, y, splat(-2.741127028184656e-1));
  p = madd(p, y, splat(5.638259427386472e-1));
  let r = madd(splat(-1.047766399936249e+1), y, splat(1.297719955372516e+1));
  r = madd(r, y, splat(-7.495518717768503));
  r = madd(r, y, splat(2.921019019210786));
  r = madd(r, y, splat(-1.015265279202700));
  r = madd(r, y, splat(4.218463358204948e-1));
  r = madd(r, y, splat(-2.820767439740514e-1));
  r = madd(r, y, splat(5.641895067754075e-1));
  const poly = v128.bitselect(p, r, f32x4.lt(a, splat(2)));
  const e = expv(f32x4.neg(f32x4.mul(a, a)));
  return f32x4.mul(f32x4.mul(e, q), poly);
}

/** The standard normal distribution function ½·erfc(-x/√2), without cancellation on either side. */
// @ts-ignore: decorator
@inline
export function normalCdf(x: v128): v128 {
  const t = f32x4.mul(x, splat(0.70710678118654752));
  const a = f32x4.abs(t);
  const half = splat(0.5);
  const near = madd(half, erfSmall(t), half);
  const tail = f32x4.mul(half, erfcBig(f32x4.pmax(a, splat(1))));
  const far = v128.bitselect(tail, f32x4.sub(splat(1), tail), f32x4.lt(x, splat(0)));
  return v128.bitselect(near, far, f32x4.lt(a, splat(1)));
}

/** The sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function sum4(v: v128): f32 {
  const h = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(h, 0) + f32x4.extract_lane(h, 1);
}

/** The largest of the four lanes. */
// @ts-ignore: decorator
@inline
export function max4(v: v128): f32 {
  const h = f32x4.max(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return max(f32x4.extract_lane(h, 0), f32x4.extract_lane(h, 1));
}

/** e^x of one number, the same bits as `expv` and `expDown`. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(expv(f32x4.splat(x)), 0);
}

/** tanh of one number, the same bits as `tanhv`. */
// @ts-ignore: decorator
@inline
export function tanh1(x: f32): f32 {
  return f32x4.extract_lane(tanhv(f32x4.splat(x)), 0);
}
