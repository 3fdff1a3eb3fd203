// A row of weights against a row of x without a decoded copy: what decoding token by token spends its time on. Bytes are
// spread to the high end of four 32-bit lanes by one swizzle and converted, so a quant counts 2^24 times its value until
// the block's scale takes that back. Bound by reading the weights where they are in no cache.
import { anyHalf4, half, half4, rare, TABLE, UNIT } from "./decode";
import { min6, scale6 } from "./decode_k";
import { madd, swizzle } from "./micro";

/** Σ q·x of sixteen i8, times 2^24; i0..i3 are the first four constants. */
// @ts-ignore: decorator
@inline
function mac16(q: v128, x: usize, i0: v128, i1: v128, i2: v128, i3: v128): v128 {
  let sum = f32x4.mul(f32x4.convert_i32x4_s(swizzle(q, i0)), v128.load(x));
  sum = madd(f32x4.convert_i32x4_s(swizzle(q, i1)), v128.load(x, 16), sum);
  sum = madd(f32x4.convert_i32x4_s(swizzle(q, i2)), v128.load(x, 32), sum);
  return madd(f32x4.convert_i32x4_s(swizzle(q, i3)), v128.load(x, 48), sum);
}

// @ts-ignore: decorator
@inline
function high(q: v128, nibble: v128): v128 {
  return v128.and(i16x8.shr_u(q, 4), nibble);
}

/** Whether `dotRow` knows the type. */
export function dots(type: i32): bool {
  return type === 1 || type === 2 || type === 16 || type === 17 || type === 20 || type === 23 || type === 24 || type === 25;
}

/** Whether `dotRow` of the type needs the sums of runs. */
export function hasMinimum(type: i32): bool {
  return type === 17 || type === 23 || type === 24;
}

/** Σ w·x in four lanes; n is a multiple of the type's block, `runs` what `sumRuns` wrote for x. */
export function dotRow(type: i32, w: usize, x: usize, n: i32, runs: usize): v128 {
  switch (type) {
    case 1:
      return bf16(w, x, n);
    case 2:
      return f16(w, x, n);
    case 16:
      return q4_0(w, x, n);
    case 17:
      return q4_1(w, x, n, runs);
    case 20:
      return q8_0(w, x, n);
    case 23:
      return q4_k(w, x, n, runs);
    case 24:
      return q5_k(w, x, n, runs);
    case 25:
      return q6_k(w, x, n);
  }
  return f32x4.splat(0);
}

/** Sums of four lanes of each run of 32 of x, for types with a minimum: to[i] = x[32i..] added up by lanes. */
export function sumRuns(x: usize, n: i32, to: usize): void {
  for (let i = 0; i < n; i += 32, x += 128, to += 16) {
    const a = f32x4.add(f32x4.add(v128.load(x), v128.load(x, 16)), f32x4.add(v128.load(x, 32), v128.load(x, 48)));
    const b = f32x4.add(f32x4.add(v128.load(x, 64), v128.load(x, 80)), f32x4.add(v128.load(x, 96), v128.load(x, 112)));
    v128.store(to, f32x4.add(a, b));
  }
}

function q8_0(w: usize, x: usize, n: i32): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 32, w += 34, x += 128) {
    const t = mac16(v128.load(w, 2), x, i0, i1, i2, i3), u = mac16(v128.load(w, 18), x + 64, i0, i1, i2, i3);
    sum = madd(f32x4.add(t, u), f32x4.splat(half(w) * UNIT), sum);
  }
  return sum;
}

function q4_0(w: usize, x: usize, n: i32): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), eight = v128.load(TABLE, 80);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 32, w += 18, x += 128) {
    const q = v128.load(w, 2);
    const t = mac16(i8x16.sub(v128.and(q, nibble), eight), x, i0, i1, i2, i3);
    const u = mac16(i8x16.sub(high(q, nibble), eight), x + 64, i0, i1, i2, i3);
    sum = madd(f32x4.add(t, u), f32x4.splat(half(w) * UNIT), sum);
  }
  return sum;
}

function q4_1(w: usize, x: usize, n: i32, runs: usize): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 32, w += 20, x += 128, runs += 16) {
    const q = v128.load(w, 4);
    const t = mac16(v128.and(q, nibble), x, i0, i1, i2, i3), u = mac16(high(q, nibble), x + 64, i0, i1, i2, i3);
    sum = madd(f32x4.add(t, u), f32x4.splat(half(w) * UNIT), sum);
    sum = madd(v128.load(runs), f32x4.splat(half(w + 2)), sum);
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function scaled(a: v128, b: v128, scale: f32, sum: v128): v128 {
  return madd(f32x4.add(a, b), f32x4.splat(scale * UNIT), sum);
}

function q4_k(w: usize, x: usize, n: i32, runs: usize): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 256, w += 144) {
    const d = half(w), dmin = half(w + 2);
    for (let s = 0; s < 8; s += 2, x += 256, runs += 32) {
      const a = v128.load(w + 16 + (<usize>s << 4)), b = v128.load(w + 32 + (<usize>s << 4));
      sum = scaled(mac16(v128.and(a, nibble), x, i0, i1, i2, i3), mac16(v128.and(b, nibble), x + 64, i0, i1, i2, i3), d * scale6(w + 4, s), sum);
      sum = madd(v128.load(runs), f32x4.splat(-dmin * min6(w + 4, s)), sum);
      sum = scaled(mac16(high(a, nibble), x + 128, i0, i1, i2, i3), mac16(high(b, nibble), x + 192, i0, i1, i2, i3), d * scale6(w + 4, s + 1), sum);
      sum = madd(v128.load(runs, 16), f32x4.splat(-dmin * min6(w + 4, s + 1)), sum);
    }
  }
  return sum;
}

/** Lane bit `s` of `bits` as 16. */
// @ts-ignore: decorator
@inline
function fifth(bits: v128, s: i32, sixteen: v128): v128 {
  return v128.and(i16x8.shl(i16x8.shr_u(bits, s), 4), sixteen);
}

function q5_k(w: usize, x: usize, n: i32, runs: usize): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), sixteen = v128.load(TABLE, 96);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 256, w += 176) {
    const d = half(w), dmin = half(w + 2), h0 = v128.load(w, 16), h1 = v128.load(w, 32);
    for (let s = 0; s < 8; s += 2, x += 256, runs += 32) {
      const a = v128.load(w + 48 + (<usize>s << 4)), b = v128.load(w + 64 + (<usize>s << 4));
      const a0 = v128.or(v128.and(a, nibble), fifth(h0, s, sixteen)), b0 = v128.or(v128.and(b, nibble), fifth(h1, s, sixteen));
      sum = scaled(mac16(a0, x, i0, i1, i2, i3), mac16(b0, x + 64, i0, i1, i2, i3), d * scale6(w + 4, s), sum);
      sum = madd(v128.load(runs), f32x4.splat(-dmin * min6(w + 4, s)), sum);
      const a1 = v128.or(high(a, nibble), fifth(h0, s + 1, sixteen)), b1 = v128.or(high(b, nibble), fifth(h1, s + 1, sixteen));
      sum = scaled(mac16(a1, x + 128, i0, i1, i2, i3), mac16(b1, x + 192, i0, i1, i2, i3), d * scale6(w + 4, s + 1), sum);
      sum = madd(v128.load(runs, 16), f32x4.splat(-dmin * min6(w + 4, s + 1)), sum);
    }
  }
  return sum;
}

function q6_k(w: usize, x: usize, n: i32): v128 {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), two = v128.load(TABLE, 112), bias = v128.load(TABLE, 128);
  let sum = f32x4.splat(0);
  for (let i = 0; i < n; i += 256, w += 210) {
    const d = half(w + 208) * UNIT;
    for (let g = 0; g < 16; g++, x += 64) {
      const h = <usize>(g >> 3), k = (g & 7) >> 1, l = <usize>(g & 1) << 4;
      const a = v128.load(w + (h << 6) + (<usize>(k & 1) << 5) + l), b = v128.load(w + 128 + (h << 5) + l);
      const q = v128.or(
        v128.and(i16x8.shr_u(a, (k >> 1) << 2), nibble),
        v128.and(i16x8.shl(i16x8.shr_u(b, k << 1), 4), two),
      );
      const t = mac16(i8x16.sub(q, bias), x, i0, i1, i2, i3);
      sum = madd(t, f32x4.splat(d * <f32>load<i8>(w + 192 + g)), sum);
    }
  }
  return sum;
}

function bf16(w: usize, x: usize, n: i32): v128 {
  const zero = i16x8.splat(0);
  let s = f32x4.splat(0), t = f32x4.splat(0), i = 0;
  for (; i + 8 <= n; i += 8, w += 16, x += 32) {
    const h = v128.load(w);
    s = madd(v128.shuffle<i16>(zero, h, 0, 8, 1, 9, 2, 10, 3, 11), v128.load(x), s);
    t = madd(v128.shuffle<i16>(zero, h, 4, 12, 5, 13, 6, 14, 7, 15), v128.load(x, 16), t);
  }
  for (; i < n; i++, w += 2, x += 4) {
    const v = f32x4.replace_lane(f32x4.splat(0), 0, reinterpret<f32>(<u32>load<u16>(w) << 16));
    s = madd(v, v128.load_splat<f32>(x), s);
  }
  return f32x4.add(s, t);
}

function f16(w: usize, x: usize, n: i32): v128 {
  const zero = i16x8.splat(0);
  let s = f32x4.splat(0), t = f32x4.splat(0), i = 0;
  for (; i + 8 <= n; i += 8, w += 16, x += 32) {
    const h = v128.load(w);
    const a = v128.shuffle<i16>(zero, h, 0, 8, 1, 9, 2, 10, 3, 11);
    const b = v128.shuffle<i16>(zero, h, 4, 12, 5, 13, 6, 14, 7, 15);
    if (rare(h)) {
      s = madd(anyHalf4(a), v128.load(x), s);
      t = madd(anyHalf4(b), v128.load(x, 16), t);
    } else {
      s = madd(half4(a), v128.load(x), s);
      t = madd(half4(b), v128.load(x, 16), t);
    }
  }
  for (; i < n; i++, w += 2, x += 4) {
    s = madd(f32x4.replace_lane(f32x4.splat(0), 0, half(w)), v128.load_splat<f32>(x), s);
  }
  return f32x4.add(s, t);
}
