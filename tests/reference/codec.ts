/**
 * Element types to f64 and back. The dense types and three block types are written here from their definitions, on
 * purpose not shared with src/formats: the two are held against each other. The other block types are src/formats'
 * (f32, bit-equal to ggml).
 * @module
 */
import type { DType } from "../../src/core/dtype.ts";
import { isQuant } from "../../src/core/dtype.ts";
import { ShapeError } from "../../src/core/errors.ts";
import { dequantize } from "../../src/formats/dequantize.ts";

const scratchF32 = new Float32Array(1), scratchU32 = new Uint32Array(scratchF32.buffer);

/** bf16 bits of x, round to nearest even. */
export function toBf16(x: number): number {
  scratchF32[0] = x;
  const u = scratchU32[0];
  if (x !== x) return 0x7fc0;
  return ((u + 0x7fff + ((u >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Value of bf16 bits. */
export function fromBf16(bits: number): number {
  scratchU32[0] = bits << 16;
  return scratchF32[0];
}

/** IEEE binary16 bits of x, round to nearest even, through the spacing of the target. */
export function toF16(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0, a = Math.abs(x);
  if (a !== a) return 0x7e00;
  if (a >= 65520) return sign | 0x7c00;
  const e = Math.max(-14, Math.floor(Math.log2(a || 1e-30)));
  const fix = a < 2 ** e ? e - 1 : a >= 2 ** (e + 1) ? e + 1 : e;
  const exp = Math.max(-14, fix), q = roundEven(a / 2 ** (exp - 10));
  // q is 1024..2048 for a normal number; a carry out of the mantissa lands in the exponent by itself.
  return sign | (q + (exp + 14) * 1024);
}

/** Value of binary16 bits. */
export function fromF16(bits: number): number {
  const s = bits & 0x8000 ? -1 : 1, e = (bits >>> 10) & 31, m = bits & 1023;
  if (e === 31) return m ? NaN : s * Infinity;
  return e === 0 ? s * m * 2 ** -24 : s * (1024 + m) * 2 ** (e - 25);
}

/** OCP fp8 e4m3 (no infinities, S.1111.111 is NaN), saturating at 448. */
export function toFp8(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x80 : 0, a = Math.abs(x);
  if (a !== a) return 0x7f;
  if (a >= 448) return sign | 0x7e;
  let exp = -6;
  while (a >= 2 ** (exp + 1)) exp++;
  return sign | (roundEven(a / 2 ** (exp - 3)) + (exp + 6) * 8);
}

/** Value of an e4m3 byte. */
export function fromFp8(b: number): number {
  const s = b & 0x80 ? -1 : 1, e = (b >>> 3) & 15, m = b & 7;
  if (e === 15 && m === 7) return NaN;
  return e === 0 ? s * m * 2 ** -9 : s * (8 + m) * 2 ** (e - 10);
}

function roundEven(x: number): number {
  const f = Math.floor(x), d = x - f;
  return d > 0.5 || (d === 0.5 && f % 2 === 1) ? f + 1 : f;
}

type Block = (b: DataView, at: number, out: Float64Array, to: number) => void;

/** ggml-common.h's block layouts: f16 scales first, then bits; nibble i and i+16 share a byte. */
const BLOCKS: Partial<Record<DType, { size: number; bytes: number; decode: Block }>> = {
  q8_0: {
    size: 32,
    bytes: 34,
    decode(b, at, out, to): void {
      const d = fromF16(b.getUint16(at, true));
      for (let i = 0; i < 32; i++) out[to + i] = d * b.getInt8(at + 2 + i);
    },
  },
  q4_0: {
    size: 32,
    bytes: 18,
    decode(b, at, out, to): void {
      const d = fromF16(b.getUint16(at, true));
      for (let i = 0; i < 16; i++) {
        const q = b.getUint8(at + 2 + i);
        out[to + i] = d * ((q & 15) - 8);
        out[to + i + 16] = d * ((q >> 4) - 8);
      }
    },
  },
  q4_1: {
    size: 32,
    bytes: 20,
    decode(b, at, out, to): void {
      const d = fromF16(b.getUint16(at, true)), m = fromF16(b.getUint16(at + 2, true));
      for (let i = 0; i < 16; i++) {
        const q = b.getUint8(at + 4 + i);
        out[to + i] = d * (q & 15) + m;
        out[to + i + 16] = d * (q >> 4) + m;
      }
    },
  },
};

const DENSE: Partial<Record<DType, { bytes: number; get(v: DataView, at: number): number }>> = {
  bf16: { bytes: 2, get: (v, at) => fromBf16(v.getUint16(at, true)) },
  f16: { bytes: 2, get: (v, at) => fromF16(v.getUint16(at, true)) },
  i32: { bytes: 4, get: (v, at) => v.getInt32(at, true) },
  u8: { bytes: 1, get: (v, at) => v.getUint8(at) },
  fp8_e4m3: { bytes: 1, get: (v, at) => fromFp8(v.getUint8(at)) },
};

/** Whether `decode` knows the type. */
export function decodes(d: DType): boolean {
  return d === "f32" || d in DENSE || isQuant(d);
}

/** `count` elements of `bytes` as f64. */
export function decode(d: DType, bytes: Uint8Array, count: number): Float64Array {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), out = new Float64Array(count);
  const dense = DENSE[d], blocks = BLOCKS[d];
  if (dense) {
    for (let i = 0; i < count; i++) out[i] = dense.get(v, i * dense.bytes);
  } else if (blocks) {
    for (let i = 0, at = 0; i < count; i += blocks.size, at += blocks.bytes) blocks.decode(v, at, out, i);
  } else if (isQuant(d)) out.set(dequantize(d, bytes));
  else throw new ShapeError(`Cannot decode ${d}: the reference backend does not know it`);
  return out;
}

/** Elements of `x` into `bytes`, rounded to the dense type `d`. */
export function encode(d: DType, x: ArrayLike<number>, bytes: Uint8Array): void {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let i = 0; i < x.length; i++) {
    if (d === "bf16") v.setUint16(2 * i, toBf16(x[i]), true);
    else if (d === "f16") v.setUint16(2 * i, toF16(x[i]), true);
    else if (d === "i32") v.setInt32(4 * i, x[i], true);
    else if (d === "u8") v.setUint8(i, x[i]);
    else if (d === "fp8_e4m3") v.setUint8(i, toFp8(x[i]));
    else throw new ShapeError(`Cannot write ${d}: the reference backend writes dense types only`);
  }
}
