/**
 * f32 to the dense types and to the five formats of 32-element blocks, byte for byte what ggml's quantize_row_*_ref
 * write: every intermediate is rounded to f32 as C does it. The formats of 256 elements are the codec module's
 * (wasm/codec.ts), which also does these faster; both are held to the same bytes.
 * @module
 */
import { type DType, DTYPES } from "../core/dtype.ts";
import { ConfigError, ShapeError } from "../core/errors.ts";
import { encodeBf16, encodeHalves, toHalf } from "./float16.ts";

const f32 = Math.fround;

/** Encodes the 32 elements of `x` from `at` into `out` from `p`. */
type Encode = (x: Float32Array, at: number, out: Uint8Array, p: number) => void;

function putHalf(out: Uint8Array, p: number, value: number): void {
  const h = toHalf(value);
  out[p] = h & 255;
  out[p + 1] = h >> 8;
}

/** The value of largest magnitude, with its sign; the first of equals. */
function peak(x: Float32Array, at: number): number {
  let best = 0;
  for (let j = at; j < at + 32; j++) if (Math.abs(x[j]!) > Math.abs(best)) best = x[j]!;
  return best;
}

/** 1/d as f32; 0 for 0. */
const inverse = (d: number): number => d ? f32(1 / d) : 0;

/** Writes 32 indices: low nibbles into `qs`, fifth bits (if any) into the four bytes at `qh`. */
function putIndices(out: Uint8Array, qs: number, qh: number | null, q: (j: number) => number): void {
  let high = 0;
  for (let j = 0; j < 16; j++) {
    const [lo, hi] = [q(j), q(j + 16)];
    out[qs + j] = (lo & 15) | (hi & 15) << 4;
    high |= lo >> 4 << j | hi >> 4 << (j + 16);
  }
  if (qh !== null) { for (let i = 0; i < 4; i++) out[qh + i] = high >>> 8 * i & 255; }
}

/** q4_0 and q5_0: x ≈ d·(q − zero), d = −peak/zero. */
function symmetric(zero: number, qh: number | null, qs: number): Encode {
  return (x, at, out, p) => {
    const d = f32(peak(x, at) / -zero);
    const id = inverse(d);
    putHalf(out, p, d);
    putIndices(out, p + qs, qh === null ? null : p + qh, (j) => {
      return Math.min(2 * zero - 1, Math.trunc(f32(f32(x[at + j]! * id) + (zero + 0.5))));
    });
  };
}

/** q4_1 and q5_1: x ≈ d·q + m, d = (max − min)/top. */
function affine(top: number, qh: number | null, qs: number): Encode {
  return (x, at, out, p) => {
    let [min, max] = [Infinity, -Infinity];
    for (let j = at; j < at + 32; j++) {
      if (x[j]! < min) min = x[j]!;
      if (x[j]! > max) max = x[j]!;
    }
    const d = f32(f32(max - min) / top);
    const id = inverse(d);
    putHalf(out, p, d);
    putHalf(out, p + 2, min);
    putIndices(out, p + qs, qh === null ? null : p + qh, (j) => {
      return Math.min(top, Math.trunc(f32(f32(f32(x[at + j]! - min) * id) + 0.5)));
    });
  };
}

/** d = peak/127, rounded half away from zero. */
const q8_0: Encode = (x, at, out, p) => {
  const d = f32(Math.abs(peak(x, at)) / 127);
  const id = inverse(d);
  putHalf(out, p, d);
  for (let j = 0; j < 32; j++) {
    const v = f32(x[at + j]! * id);
    out[p + 2 + j] = Math.sign(v) * Math.floor(Math.abs(v) + 0.5);
  }
};

const ENCODERS: Partial<Record<DType, Encode>> = {
  q4_0: symmetric(8, null, 2),
  q4_1: affine(15, null, 4),
  q5_0: symmetric(16, 2, 6),
  q5_1: affine(31, 4, 8),
  q8_0,
};

/** Whether `quantize` writes this type. */
export function canQuantize(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16" || dtype in ENCODERS;
}

/**
 * `x` as bytes of `dtype`, blocks following one another.
 * @throws {ShapeError} when the length is no multiple of the block; {ConfigError} for a type not written here
 */
export function quantize(dtype: DType, x: Float32Array): Uint8Array<ArrayBuffer> {
  if (dtype === "f32") return new Uint8Array(x.slice().buffer);
  if (dtype === "f16") return encodeHalves(x);
  if (dtype === "bf16") return encodeBf16(x);
  const encode = ENCODERS[dtype];
  if (!encode) throw new ConfigError(`Cannot quantise to ${dtype} without the codec module`);
  const { block, bytes } = DTYPES[dtype];
  if (x.length % block) throw new ShapeError(`Cannot store ${x.length} elements as ${dtype}: the block is ${block}`);
  const out = new Uint8Array(x.length / block * bytes);
  for (let i = 0; i < x.length / block; i++) encode(x, i * block, out, i * bytes);
  return out;
}
