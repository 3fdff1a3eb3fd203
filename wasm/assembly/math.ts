// exp, tanh, erf and sin/cos on vectors. Polynomials and their coefficients: S. Moshier's Cephes library (netlib.org/
// cephes, single/expf.c, tanhf.c, ndtrf.c); each is within 2e-7 relative of the exact function (tests/wasm/math_test.ts),
// f32's own rounding being 6e-8.
import { madd } from "./micro";

// @ts-ignore: decorator
@inline
function splat(x: f32): v128 {
  return f32x4.splat(x);
}

/**
 * Constants of `expOf` and its like, each in four lanes, in memory: V8 makes a literal anew at each use, by instructions of the port that
 * shuffles and multiplies.
 */
const EXP: usize = memory.data<f32>([
  // 0: log2 e, 3·2^22
  1.44269504088896341, 1.44269504088896341, 1.44269504088896341, 1.44269504088896341,
  12582912, 12582912, 12582912, 12582912,
  // 2: -ln 2 in two parts, the first exact in few bits
  -0.693359375, -0.693359375, -0.693359375, -0.693359375,
  2.12194440e-4, 2.12194440e-4, 2.12194440e-4, 2.12194440e-4,
  // 4: the polynomial
  1.9875691500e-4, 1.9875691500e-4, 1.9875691500e-4, 1.9875691500e-4,
  1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3, 1.3981999507e-3,
  8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3, 8.3334519073e-3,
  4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2, 4.1665795894e-2,
  1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1, 1.6666665459e-1,
  5.0000001201e-1, 5.0000001201e-1, 5.0000001201e-1, 5.0000001201e-1,
  1, 1, 1, 1,
  // 11: the least and the greatest argument
  -87.3365478515625, -87.3365478515625, -87.3365478515625, -87.3365478515625,
  88.3762626647949, 88.3762626647949, 88.3762626647949, 88.3762626647949,
  Infinity, Infinity, Infinity, Infinity,
]);

/** Constant i. */
// @ts-ignore: decorator
@inline
function constant(i: usize): v128 {
  return v128.load(EXP + 16 * i);
}

/** 2^n · e^r for |r| ≤ ln 2 / 2, x = n · ln 2 + r; x lies between the least and the greatest argument, or is NaN. */
// @ts-ignore: decorator
@inline
function expOf(x: v128): v128 {
  // 3·2^22 + y has the integer nearest to y in its low bits
  const t = f32x4.add(f32x4.mul(x, constant(0)), constant(1)), n = f32x4.sub(t, constant(1)), one = constant(10);
  let r = madd(n, constant(2), x);
  r = madd(n, constant(3), r);
  let p = madd(constant(4), r, constant(5));
  p = madd(p, r, constant(6));
  p = madd(p, r, constant(7));
  p = madd(p, r, constant(8));
  p = madd(p, r, constant(9));
  p = madd(p, f32x4.mul(r, r), f32x4.add(r, one));
  return f32x4.mul(p, i32x4.add(i32x4.shl(t, 23), one));
}

/** e^x; 0 below -87.34 (the smallest normal number), infinity above 88.37, NaN stays. */
// @ts-ignore: decorator
@inline
export function expv(x: v128): v128 {
  const least = constant(11), most = constant(12), low = f32x4.lt(x, least), high = f32x4.gt(x, most);
  return v128.bitselect(constant(13), v128.andnot(expOf(f32x4.pmin(f32x4.pmax(x, least), most)), low), high);
}

/** e^x for x that is at most 88 or NaN: a score less the largest one. The same bits as `expv`. */
// @ts-ignore: decorator
@inline
export function expDown(x: v128): v128 {
  const least = constant(11);
  return v128.andnot(expOf(f32x4.pmax(x, least)), f32x4.lt(x, least));
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
