// Super-blocks of 256 elements: K-quants and IQ4_XS. Layouts: ggml-common.h.
import { affine16, half, high4, iq4Levels, scale16, TABLE, UNIT } from "./decode";

/** scales[16] (low nibble scale, high nibble minimum), qs[64] of 2 bits, d, dmin. */
export function q2_k(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const three = v128.load(TABLE, 144);
  for (let i = 0; i < n; i += 256, src += 84) {
    const d = half(src + 80) * UNIT, dmin = half(src + 82);
    for (let g = 0; g < 16; g++, dst += 64) {
      const s = <i32>load<u8>(src + g);
      const q = v128.load(src + 16 + (<usize>(g >> 3) << 5) + (<usize>(g & 1) << 4));
      const v = v128.and(i8x16.shr_u(q, ((g & 7) >> 1) << 1), three);
      affine16(dst, v, f32x4.splat(d * <f32>(s & 15)), f32x4.splat(-dmin * <f32>(s >> 4)), i0, i1, i2, i3);
    }
  }
}

/** hmask[32], qs[64] of 2 bits, scales[12] of 6 bits, d. */
export function q3_k(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const three = v128.load(TABLE, 144), four = v128.load(TABLE, 160);
  for (let i = 0; i < n; i += 256, src += 110) {
    const d = half(src + 108) * UNIT, sc = src + 96;
    for (let g = 0; g < 16; g++, dst += 64) {
      const low = g < 8 ? <i32>load<u8>(sc + g) & 15 : <i32>load<u8>(sc + g - 8) >> 4;
      const s = (low | (((<i32>load<u8>(sc + 8 + (g & 3)) >> ((g >> 2) << 1)) & 3) << 4)) - 32;
      const at = <usize>(g & 1) << 4;
      const q = v128.and(i8x16.shr_u(v128.load(src + 32 + (<usize>(g >> 3) << 5) + at), ((g & 7) >> 1) << 1), three);
      const bit = i8x16.splat(<i8>(<i32>1 << (g >> 1)));
      const clear = i8x16.eq(v128.and(v128.load(src + at), bit), i8x16.splat(0));
      scale16(dst, i8x16.sub(q, v128.and(clear, four)), f32x4.splat(d * <f32>s), i0, i1, i2, i3);
    }
  }
}

/** Scale of sub-block s from the 12 bytes of q4_k and q5_k, 6 bits each (ggml's get_scale_min_k4). */
// @ts-ignore: decorator
@inline
export function scale6(p: usize, s: i32): f32 {
  const x = s < 4
    ? <i32>load<u8>(p + s) & 63
    : (<i32>load<u8>(p + s + 4) & 15) | ((<i32>load<u8>(p + s - 4) >> 6) << 4);
  return <f32>x;
}

/** Minimum of sub-block s. */
// @ts-ignore: decorator
@inline
export function min6(p: usize, s: i32): f32 {
  const x = s < 4
    ? <i32>load<u8>(p + s + 4) & 63
    : (<i32>load<u8>(p + s + 4) >> 4) | ((<i32>load<u8>(p + s) >> 6) << 4);
  return <f32>x;
}

/** d, dmin, scales[12], qs[128] of 4 bits. */
export function q4_k(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  for (let i = 0; i < n; i += 256, src += 144) {
    const d = half(src) * UNIT, dmin = half(src + 2);
    for (let s = 0; s < 8; s += 2, dst += 256) {
      const qs = src + 16 + (<usize>s << 4);
      const d0 = f32x4.splat(d * scale6(src + 4, s)), m0 = f32x4.splat(-dmin * min6(src + 4, s));
      const d1 = f32x4.splat(d * scale6(src + 4, s + 1)), m1 = f32x4.splat(-dmin * min6(src + 4, s + 1));
      const a = v128.load(qs), b = v128.load(qs, 16);
      affine16(dst, v128.and(a, nibble), d0, m0, i0, i1, i2, i3);
      affine16(dst + 64, v128.and(b, nibble), d0, m0, i0, i1, i2, i3);
      affine16(dst + 128, high4(a, nibble), d1, m1, i0, i1, i2, i3);
      affine16(dst + 192, high4(b, nibble), d1, m1, i0, i1, i2, i3);
    }
  }
}

/** Lane bit `s` of `high` as 16. */
// @ts-ignore: decorator
@inline
function bit16(high: v128, s: i32): v128 {
  return i8x16.shl(v128.and(i8x16.shr_u(high, s), i8x16.splat(1)), 4);
}

/** d, dmin, scales[12], qh[32], qs[128]: as q4_k with a fifth bit. */
export function q5_k(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64);
  for (let i = 0; i < n; i += 256, src += 176) {
    const d = half(src) * UNIT, dmin = half(src + 2);
    const h0 = v128.load(src, 16), h1 = v128.load(src, 32);
    for (let s = 0; s < 8; s += 2, dst += 256) {
      const qs = src + 48 + (<usize>s << 4);
      const d0 = f32x4.splat(d * scale6(src + 4, s)), m0 = f32x4.splat(-dmin * min6(src + 4, s));
      const d1 = f32x4.splat(d * scale6(src + 4, s + 1)), m1 = f32x4.splat(-dmin * min6(src + 4, s + 1));
      const a = v128.load(qs), b = v128.load(qs, 16);
      affine16(dst, v128.or(v128.and(a, nibble), bit16(h0, s)), d0, m0, i0, i1, i2, i3);
      affine16(dst + 64, v128.or(v128.and(b, nibble), bit16(h1, s)), d0, m0, i0, i1, i2, i3);
      affine16(dst + 128, v128.or(high4(a, nibble), bit16(h0, s + 1)), d1, m1, i0, i1, i2, i3);
      affine16(dst + 192, v128.or(high4(b, nibble), bit16(h1, s + 1)), d1, m1, i0, i1, i2, i3);
    }
  }
}

/** ql[128] low 4 bits, qh[64] high 2 bits, i8 scales[16], d. */
export function q6_k(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), three = v128.load(TABLE, 144), bias = v128.load(TABLE, 128);
  for (let i = 0; i < n; i += 256, src += 210) {
    const d = half(src + 208) * UNIT;
    for (let g = 0; g < 16; g++, dst += 64) {
      const h = <usize>(g >> 3), k = (g & 7) >> 1, l = <usize>(g & 1) << 4;
      const low = v128.load(src + (h << 6) + (<usize>(k & 1) << 5) + l);
      const high = v128.load(src + 128 + (h << 5) + l);
      const a = v128.and(i8x16.shr_u(low, (k >> 1) << 2), nibble);
      const b = i8x16.shl(v128.and(i8x16.shr_u(high, k << 1), three), 4);
      scale16(dst, i8x16.sub(v128.or(a, b), bias), f32x4.splat(d * <f32>load<i8>(src + 192 + g)), i0, i1, i2, i3);
    }
  }
}

/** d, scales_h u16, scales_l[4], qs[128]: IQ4_NL's levels with a 6-bit scale a 32. */
export function iq4_xs(src: usize, dst: usize, n: i32): void {
  const i0 = v128.load(TABLE), i1 = v128.load(TABLE, 16), i2 = v128.load(TABLE, 32), i3 = v128.load(TABLE, 48);
  const nibble = v128.load(TABLE, 64), levels = iq4Levels();
  for (let i = 0; i < n; i += 256, src += 136) {
    const d = half(src) * UNIT, high = <i32>load<u16>(src, 2);
    for (let s = 0; s < 8; s++, dst += 128) {
      const low = (<i32>load<u8>(src + 4 + (s >> 1)) >> ((s & 1) << 2)) & 15;
      const scale = f32x4.splat(d * <f32>((low | (((high >> (s << 1)) & 3) << 4)) - 32));
      const q = v128.load(src + 8 + (<usize>s << 4));
      scale16(dst, i8x16.swizzle(levels, v128.and(q, nibble)), scale, i0, i1, i2, i3);
      scale16(dst + 64, i8x16.swizzle(levels, high4(q, nibble)), scale, i0, i1, i2, i3);
    }
  }
}
