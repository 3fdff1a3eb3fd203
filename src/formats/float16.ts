/**
 * Conversions between f32 and the 16-bit and 8-bit floats, rounding to nearest even as hardware and ggml do.
 * @module
 */
import { ConfigError } from "../core/errors.ts";

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

let halfTable: Float32Array | undefined;

/** All 65,536 halves as f32: a lookup is the fastest decoder JavaScript has. 256 KiB, made on first use. */
export function halves(): Float32Array {
  if (halfTable) return halfTable;
  const t = new Float32Array(65536);
  for (let h = 0; h < 65536; h++) {
    const sign = h & 0x8000 ? -1 : 1;
    const exp = (h >> 10) & 31;
    const frac = h & 1023;
    if (exp === 31) t[h] = frac ? NaN : sign * Infinity;
    else t[h] = exp ? sign * 2 ** (exp - 25) * (1024 + frac) : sign * 2 ** -24 * frac;
  }
  halfTable = t;
  return t;
}

/** IEEE half with these 16 bits. */
export function fromHalf(bits: number): number {
  return halves()[bits]!;
}

/** The 16 bits of the half nearest to `x` (taken as f32 first); ties to even, overflow to infinity, NaN to 0x7e00. */
export function toHalf(x: number): number {
  float[0] = x;
  const w = word[0]!;
  const sign = (w >>> 16) & 0x8000;
  const a = w & 0x7fffffff;
  if (a > 0x7f800000) return sign | 0x7e00;
  if (a >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (a < 0x38800000) { // below 2^-14: subnormal, steps of 2^-24
    float[0] = Math.abs(x);
    const n = float[0]! * 16777216;
    const down = Math.floor(n);
    const rest = n - down;
    return sign | (rest > 0.5 || (rest === 0.5 && (down & 1)) ? down + 1 : down);
  }
  const odd = (a >>> 13) & 1;
  return sign | (((a + 0xfff + odd) >>> 13) - (112 << 10));
}

/** The 16 bits of the bfloat16 nearest to `x` (taken as f32 first); ties to even, NaN stays NaN. */
export function toBf16(x: number): number {
  float[0] = x;
  const w = word[0]!;
  if ((w & 0x7fffffff) > 0x7f800000) return (w >>> 16) | 64;
  return ((w + 0x7fff + ((w >>> 16) & 1)) >>> 16) & 0xffff;
}

/** bfloat16 with these 16 bits. */
export function fromBf16(bits: number): number {
  word[0] = bits << 16;
  return float[0]!;
}

/** All 256 values of fp8 e4m3fn (bias 7, no infinities, 0x7f and 0xff NaN; OCP 8-bit floating point spec). */
export function fp8Values(): Float32Array {
  const t = new Float32Array(256);
  for (let b = 0; b < 256; b++) {
    const exp = (b >> 3) & 15;
    const frac = b & 7;
    const size = exp ? 2 ** (exp - 10) * (8 + frac) : 2 ** -9 * frac;
    t[b] = (b & 127) === 127 ? NaN : b & 128 ? -size : size;
  }
  return t;
}

/** f32 values as halves, little-endian. */
export function encodeHalves(x: Float32Array): Uint8Array<ArrayBuffer> {
  const out = new Uint16Array(x.length);
  for (let i = 0; i < x.length; i++) out[i] = toHalf(x[i]!);
  return new Uint8Array(out.buffer);
}

/** The same, for a tensor called `name`. @throws {ConfigError} when a value is beyond what a half holds, and would be infinite */
export function encodeFiniteHalves(x: Float32Array, name: string): Uint8Array<ArrayBuffer> {
  for (let i = 0; i < x.length; i++) {
    if (Math.abs(x[i]!) > 65504) {
      throw new ConfigError(`Cannot write '${name}' as f16: it has the value ${x[i]}, and f16 ends at 65504; use bf16`);
    }
  }
  return encodeHalves(x);
}

/** f32 values as bfloat16, little-endian. */
export function encodeBf16(x: Float32Array): Uint8Array<ArrayBuffer> {
  const out = new Uint16Array(x.length);
  for (let i = 0; i < x.length; i++) out[i] = toBf16(x[i]!);
  return new Uint8Array(out.buffer);
}
