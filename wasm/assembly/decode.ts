// Weights of any type to f32, a row segment at a time, in the packing of a tile: never a whole copy. Layouts of the
// formats in blocks of 32: ggml-common.h; nf4: bitsandbytes (64 nibbles, then one f32 absmax). Super-blocks: decode_k.ts.
import * as K from "./decode_k";
import { madd, swizzle } from "./micro";

// ../../src/core/dtype.ts has the same numbers; tests/wasm/decode_test.ts runs every type through both.
const F32: i32 = 0, BF16: i32 = 1, F16: i32 = 2, FP8: i32 = 5;
const Q4_0: i32 = 16, Q4_1: i32 = 17, Q5_0: i32 = 18, Q5_1: i32 = 19, Q8_0: i32 = 20, Q2_K: i32 = 21, Q3_K: i32 = 22;
const Q4_K: i32 = 23, Q5_K: i32 = 24, Q6_K: i32 = 25, IQ4_NL: i32 = 26, IQ4_XS: i32 = 27, NF4: i32 = 28;

/** The value of the binary16 at p. */
// @ts-ignore: decorator
@inline
export function half(p: usize): f32 {
  const h = <i32>load<i16>(p);
  if (<u32>((h & 0x7fff) - 0x400) >= 0x7800) return rareHalf(h);
  // exponent and mantissa to their places with the sign at the top, then the bias 127 instead of 15
  return reinterpret<f32>((((h << 16) >> 3) & 0x8fffe000) + 0x38000000);
}

/** Zero, subnormal, infinity or NaN. */
function rareHalf(h: i32): f32 {
  const sign = (<u32>h & 0x8000) << 16, m = <u32>h & 0x7fff;
  if (m < 0x400) return reinterpret<f32>(sign | reinterpret<u32>(<f32>m * <f32>5.9604644775390625e-8));
  return reinterpret<f32>(sign | ((m << 13) + 0x70000000));
}

/** Bytes of n elements of a type from the start of a block. */
export function bytesOf(type: i32, n: i32): usize {
  switch (type) {
    case F32:
    case 3:
      return <usize>n << 2;
    case BF16:
    case F16:
      return <usize>n << 1;
    case Q4_0:
    case IQ4_NL:
      return <usize>(n >> 5) * 18;
    case Q4_1:
      return <usize>(n >> 5) * 20;
    case Q5_0:
      return <usize>(n >> 5) * 22;
    case Q5_1:
      return <usize>(n >> 5) * 24;
    case Q8_0:
      return <usize>(n >> 5) * 34;
    case Q2_K:
      return <usize>(n >> 8) * 84;
    case Q3_K:
      return <usize>(n >> 8) * 110;
    case Q4_K:
      return <usize>(n >> 8) * 144;
    case Q5_K:
      return <usize>(n >> 8) * 176;
    case Q6_K:
      return <usize>(n >> 8) * 210;
    case IQ4_XS:
      return <usize>(n >> 8) * 136;
    case NF4:
      return <usize>(n >> 6) * 36;
  }
  return <usize>n;
}

/** n elements from the block boundary `src` to f32 at `dst`; n is a multiple of the type's block. */
export function decode(type: i32, src: usize, dst: usize, n: i32): void {
  switch (type) {
    case F32:
      memory.copy(dst, src, <usize>n << 2);
      return;
    case BF16:
      return bf16(src, dst, n);
    case F16:
      return f16(src, dst, n);
    case FP8:
      return fp8(src, dst, n);
    case Q4_0:
      return q4_0(src, dst, n);
    case Q4_1:
      return q4_1(src, dst, n);
    case Q5_0:
      return q5_0(src, dst, n);
    case Q5_1:
      return q5_1(src, dst, n);
    case Q8_0:
      return q8_0(src, dst, n);
    case Q2_K:
      return K.q2_k(src, dst, n);
    case Q3_K:
      return K.q3_k(src, dst, n);
    case Q4_K:
      return K.q4_k(src, dst, n);
    case Q5_K:
      return K.q5_k(src, dst, n);
    case Q6_K:
      return K.q6_k(src, dst, n);
    case IQ4_NL:
      return iq4_nl(src, dst, n);
    case IQ4_XS:
      return K.iq4_xs(src, dst, n);
    case NF4:
      return nf4(src, dst, n);
  }
  unreachable();
}

function bf16(src: usize, dst: usize, n: i32): void {
  let i = 0;
  for (; i + 8 <= n; i += 8, src += 16, dst += 32) {
    const h = v128.load(src);
    const zero = i16x8.splat(0);
    v128.store(dst, v128.shuffle<i16>(zero, h, 0, 8, 1, 9, 2, 10, 3, 11));
    v128.store(dst, v128.shuffle<i16>(zero, h, 4, 12, 5, 13, 6, 14, 7, 15), 16);
  }
  for (; i < n; i++, src += 2, dst += 4) store<u32>(dst, <u32>load<u16>(src) << 16);
}

/** Constants of `half4` and `rare`, in memory because V8 makes a v128 literal anew at each use. */
const HALF: usize = memory.data<u32>([
  0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000, 0x38000000, 0x38000000, 0x38000000, 0x38000000,
  0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x04000400, 0x04000400, 0x04000400, 0x04000400,
  0x78007800, 0x78007800, 0x78007800, 0x78007800,
]);

/** Four normal halves in the high 16 bits of each lane, the rest zero, to f32: bits moved and the bias changed. */
// @ts-ignore: decorator
@inline
export function half4(h: v128): v128 {
  return i32x4.add(v128.and(i32x4.shr_s(h, 3), v128.load(HALF)), v128.load(HALF, 16));
}

/** Whether one of eight halves is zero, subnormal, infinity or NaN. */
// @ts-ignore: decorator
@inline
export function rare(h: v128): bool {
  const m = i16x8.sub(v128.and(h, v128.load(HALF, 32)), v128.load(HALF, 48));
  return v128.any_true(i16x8.ge_u(m, v128.load(HALF, 64)));
}

/** Any four halves, laid out as for `half4`. */
export function anyHalf4(h: v128): v128 {
  const m = v128.and(i32x4.shr_u(h, 16), i32x4.splat(0x7fff));
  const normal = i32x4.add(i32x4.shl(m, 13), i32x4.splat(0x38000000));
  const big = i32x4.add(normal, v128.and(i32x4.gt_s(m, i32x4.splat(0x7bff)), i32x4.splat(0x38000000)));
  const tiny = f32x4.mul(f32x4.convert_i32x4_s(m), f32x4.splat(5.9604644775390625e-8));
  const x = v128.bitselect(tiny, big, i32x4.lt_s(m, i32x4.splat(0x400)));
  return v128.or(x, v128.and(h, i32x4.splat(0x80000000)));
}

function f16(src: usize, dst: usize, n: i32): void {
  const zero = i16x8.splat(0);
  let i = 0;
  for (; i + 8 <= n; i += 8, src += 16, dst += 32) {
    const h = v128.load(src);
    const a = v128.shuffle<i16>(zero, h, 0, 8, 1, 9, 2, 10, 3, 11);
    const b = v128.shuffle<i16>(zero, h, 4, 12, 5, 13, 6, 14, 7, 15);
    const odd = rare(h);
    v128.store(dst, odd ? anyHalf4(a) : half4(a));
    v128.store(dst, odd ? anyHalf4(b) : half4(b), 16);
  }
  for (; i < n; i++, src += 2, dst += 4) store<f32>(dst, half(src));
}

/** OCP fp8 e4m3: S.1111.111 is NaN, there is no infinity. */
function fp8(src: usize, dst: usize, n: i32): void {
  for (let i = 0; i < n; i++, src++, dst += 4) {
    const b = <u32>load<u8>(src);
    const m = b & 0x7f;
    let x: f32 = m < 8
      ? <f32>m * <f32>0.001953125
      : reinterpret<f32>((m << 20) + 0x3c000000);
    if (m === 0x7f) x = f32.NaN;
    store<f32>(dst, b & 0x80 ? -x : x);
  }
}

/**
 * Constants, in memory because V8 makes a v128 literal anew at each use, by four instructions: indices that spread bytes
 * 0-3, 4-7, 8-11, 12-15 to the high end of four lanes (128 gives 0), then 15, 8, 16, 48, 32, 3 and 4 sixteen times.
 */
export const TABLE: usize = memory.data<u8>([
  128, 128, 128, 0, 128, 128, 128, 1, 128, 128, 128, 2, 128, 128, 128, 3,
  128, 128, 128, 4, 128, 128, 128, 5, 128, 128, 128, 6, 128, 128, 128, 7,
  128, 128, 128, 8, 128, 128, 128, 9, 128, 128, 128, 10, 128, 128, 128, 11,
  128, 128, 128, 12, 128, 128, 128, 13, 128, 128, 128, 14, 128, 128, 128, 15,
  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
  8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
  16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16,
  48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48,
  32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32,
  3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
  4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
]);
/** 2^-24: what a byte at the high end of a lane counts. */
export const UNIT: f32 = 5.9604644775390625e-8;

/** Four bytes of q, spread by one of the table's indices, as floats 2^24 too large. */
// @ts-ignore: decorator
@inline
export function quarter(q: v128, index: v128): v128 {
  return f32x4.convert_i32x4_s(swizzle(q, index));
}

/** Stores d·q for sixteen i8; d is UNIT times the scale, i0..i3 the table's indices. The products are exact. */
// @ts-ignore: decorator
@inline
export function scale16(dst: usize, q: v128, d: v128, i0: v128, i1: v128, i2: v128, i3: v128): void {
  v128.store(dst, f32x4.mul(quarter(q, i0), d));
  v128.store(dst, f32x4.mul(quarter(q, i1), d), 16);
  v128.store(dst, f32x4.mul(quarter(q, i2), d), 32);
  v128.store(dst, f32x4.mul(quarter(q, i3), d), 48);
}

/** Stores d·q + m, rounded once because d·q is exact. */
// @ts-ignore: decorator
@inline
export function affine16(dst: usize, q: v128, d: v128, m: v128, i0: v128, i1: v128, i2: v128, i3: v128): void {
  v128.store(dst, madd(quarter(q, i0), d, m));
  v128.store(dst, madd(quarter(q, i1), d, m), 16);
  v128.store(dst, madd(quarter(q, i2), d, m), 32);
  v128.store(dst, madd(quarter(q, i3), d, m), 48);
}

/** The high nibbles of sixteen bytes. */
// @ts-ignore: decorator
@inline
export function high4(q: v128, nibble: v128): v128 {
  return v128.and(i16x8.shr_u(q, 4), nibble);
}

function q8_0(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  for (let i = 0; i < n; i += 32, src += 34, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT);
    scale16(dst, v128.load(src, 2), d, i0, i1, i2, i3);
    scale16(dst + 64, v128.load(src, 18), d, i0, i1, i2, i3);
  }
}

function q4_0(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), eight = v128.load(TABLE, 80);
  for (let i = 0; i < n; i += 32, src += 18, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT);
    const q = v128.load(src, 2);
    scale16(dst, i8x16.sub(v128.and(q, nibble), eight), d, i0, i1, i2, i3);
    scale16(dst + 64, i8x16.sub(high4(q, nibble), eight), d, i0, i1, i2, i3);
  }
}

function q4_1(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  for (let i = 0; i < n; i += 32, src += 20, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT), m = f32x4.splat(half(src + 2));
    const q = v128.load(src, 4);
    affine16(dst, v128.and(q, nibble), d, m, i0, i1, i2, i3);
    affine16(dst + 64, high4(q, nibble), d, m, i0, i1, i2, i3);
  }
}

/** Bit i of `bits` as the value 16 in lane i. */
// @ts-ignore: decorator
@inline
function fifth(bits: i32): v128 {
  const b = v128.shuffle<i8>(i32x4.splat(bits), i32x4.splat(0), 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const mask = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  return v128.and(i8x16.eq(v128.and(b, mask), mask), i8x16.splat(16));
}

function q5_0(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), sixteen = v128.load(TABLE, 96);
  for (let i = 0; i < n; i += 32, src += 22, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT);
    const high = load<i32>(src, 2), q = v128.load(src, 6);
    scale16(dst, i8x16.sub(v128.or(v128.and(q, nibble), fifth(high)), sixteen), d, i0, i1, i2, i3);
    scale16(dst + 64, i8x16.sub(v128.or(high4(q, nibble), fifth(high >>> 16)), sixteen), d, i0, i1, i2, i3);
  }
}

function q5_1(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  for (let i = 0; i < n; i += 32, src += 24, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT), m = f32x4.splat(half(src + 2));
    const high = load<i32>(src, 4), q = v128.load(src, 8);
    affine16(dst, v128.or(v128.and(q, nibble), fifth(high)), d, m, i0, i1, i2, i3);
    affine16(dst + 64, v128.or(high4(q, nibble), fifth(high >>> 16)), d, m, i0, i1, i2, i3);
  }
}

/** The sixteen levels of IQ4_NL and IQ4_XS (ggml-common.h kvalues_iq4nl). */
// @ts-ignore: decorator
@inline
export function iq4Levels(): v128 {
  return i8x16(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

function iq4_nl(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), levels = iq4Levels();
  for (let i = 0; i < n; i += 32, src += 18, dst += 128) {
    const d = f32x4.splat(half(src) * UNIT);
    const q = v128.load(src, 2);
    scale16(dst, i8x16.swizzle(levels, v128.and(q, nibble)), d, i0, i1, i2, i3);
    scale16(dst + 64, i8x16.swizzle(levels, high4(q, nibble)), d, i0, i1, i2, i3);
  }
}

/** NF4's sixteen levels (Dettmers et al. 2023, "QLoRA", appendix E). */
const NF4_LEVELS: usize = memory.data<f32>([
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]);

/** bitsandbytes puts the first of two elements into the high nibble. */
function nf4(src: usize, dst: usize, n: i32): void {
  for (let i = 0; i < n; i += 64, src += 36) {
    const d = load<f32>(src, 32);
    for (let j: usize = 0; j < 32; j++, dst += 8) {
      const b = <usize>load<u8>(src + j);
      store<f32>(dst, d * load<f32>(NF4_LEVELS + ((b >> 4) << 2)));
      store<f32>(dst, d * load<f32>(NF4_LEVELS + ((b & 15) << 2)), 4);
    }
  }
}
