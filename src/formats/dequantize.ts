/**
 * Bytes of any element type to f32, equal to ggml's to the last bit. Products of a half, a 6- or 8-bit scale and a
 * small integer are exact in f64, so one rounding on the store into a Float32Array is the rounding ggml does.
 * Block layouts: ggml-common.h; nf4: 32 bytes of nibbles (element 2i high, 2i+1 low) and one f32 absmax.
 * @module
 */
import { type DType, DTYPES } from "../core/dtype.ts";
import { FormatError } from "../core/errors.ts";
import { IQ4_VALUES, NF4_VALUES } from "./block_values.ts";
import { dequantizeK } from "./dequantize_k.ts";
import { fp8Values, halves } from "./float16.ts";

/** Decodes `blocks` blocks of `b` into `y`. */
type Decode = (b: Uint8Array, y: Float32Array, blocks: number) => void;

/** Scale, optional minimum, optional fifth bits, then 16 bytes of nibbles: q4_0, q4_1, q5_0, q5_1. */
function nibbles(bytes: number, o: { min: boolean; high: boolean; zero: number }): Decode {
  return (b, y, blocks) => {
    const half = halves();
    const qhAt = o.min ? 4 : 2;
    const qsAt = qhAt + (o.high ? 4 : 0);
    for (let i = 0, p = 0, at = 0; i < blocks; i++, p += bytes, at += 32) {
      const d = half[b[p]! | b[p + 1]! << 8]!;
      const m = o.min ? half[b[p + 2]! | b[p + 3]! << 8]! : 0;
      const h = p + qhAt;
      const qh = o.high ? b[h]! | b[h + 1]! << 8 | b[h + 2]! << 16 | b[h + 3]! << 24 : 0;
      for (let j = 0; j < 16; j++) {
        const q = b[p + qsAt + j]!;
        const lo = (q & 15) | (qh >>> j & 1) << 4;
        const hi = q >> 4 | (qh >>> (j + 16) & 1) << 4;
        y[at + j] = o.min ? d * lo + m : d * (lo - o.zero);
        y[at + j + 16] = o.min ? d * hi + m : d * (hi - o.zero);
      }
    }
  };
}

const q8_0: Decode = (b, y, blocks) => {
  const half = halves();
  const q = new Int8Array(b.buffer, b.byteOffset, b.length);
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 34, at += 32) {
    const d = half[b[p]! | b[p + 1]! << 8]!;
    for (let j = 0; j < 32; j++) y[at + j] = d * q[p + 2 + j]!;
  }
};

const iq4_nl: Decode = (b, y, blocks) => {
  const half = halves();
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 18, at += 32) {
    const d = half[b[p]! | b[p + 1]! << 8]!;
    for (let j = 0; j < 16; j++) {
      const q = b[p + 2 + j]!;
      y[at + j] = d * IQ4_VALUES[q & 15]!;
      y[at + j + 16] = d * IQ4_VALUES[q >> 4]!;
    }
  }
};

const nf4: Decode = (b, y, blocks) => {
  const view = new DataView(b.buffer, b.byteOffset, b.length);
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 36, at += 64) {
    const absmax = view.getFloat32(p + 32, true);
    for (let j = 0; j < 32; j++) {
      y[at + 2 * j] = absmax * NF4_VALUES[b[p + j]! >> 4]!;
      y[at + 2 * j + 1] = absmax * NF4_VALUES[b[p + j]! & 15]!;
    }
  }
};

const BLOCKS: Partial<Record<DType, Decode>> = {
  q4_0: nibbles(18, { min: false, high: false, zero: 8 }),
  q4_1: nibbles(20, { min: true, high: false, zero: 0 }),
  q5_0: nibbles(22, { min: false, high: true, zero: 16 }),
  q5_1: nibbles(24, { min: true, high: true, zero: 0 }),
  q8_0,
  iq4_nl,
  nf4,
};

/** 16-bit little-endian words of `b`, copied only where `b` is not aligned. */
function words(b: Uint8Array): Uint16Array {
  const own = b.byteOffset % 2 ? b.slice() : b;
  return new Uint16Array(own.buffer, own.byteOffset, own.length >> 1);
}

function decodeDense(dtype: DType, b: Uint8Array, y: Float32Array): void {
  if (dtype === "f32") {
    new Uint8Array(y.buffer, y.byteOffset, y.byteLength).set(b);
  } else if (dtype === "f16") {
    const half = halves();
    const w = words(b);
    for (let i = 0; i < y.length; i++) y[i] = half[w[i]!]!;
  } else if (dtype === "bf16") {
    const w = words(b);
    const bits = new Uint32Array(y.buffer, y.byteOffset, y.length);
    for (let i = 0; i < y.length; i++) bits[i] = w[i]! << 16;
  } else if (dtype === "i32") {
    const view = new DataView(b.buffer, b.byteOffset, b.length);
    for (let i = 0; i < y.length; i++) y[i] = view.getInt32(4 * i, true);
  } else if (dtype === "u8") {
    y.set(b);
  } else {
    const values = fp8Values();
    for (let i = 0; i < y.length; i++) y[i] = values[b[i]!]!;
  }
}

/**
 * Values of `bytes`, which hold whole blocks of `dtype`.
 * @param into where to write; made when absent
 * @returns `into`, f32 [blocks · block length]
 * @throws {FormatError} when `bytes` is no whole number of blocks or `into` has another length
 */
export function dequantize(
  dtype: DType,
  bytes: Uint8Array,
  into?: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const { block, bytes: size } = DTYPES[dtype];
  const blocks = bytes.length / size;
  if (!Number.isInteger(blocks) || (into && into.length !== blocks * block)) {
    throw new FormatError(
      `Cannot decode ${bytes.length} bytes of ${dtype}: a block of ${block} is ${size} bytes` +
        (into ? `, and the result has ${into.length} elements` : ""),
    );
  }
  const y = into ?? new Float32Array(blocks * block);
  const decode = BLOCKS[dtype];
  if (decode) decode(bytes, y, blocks);
  else if (block > 1) dequantizeK(dtype, bytes, y, blocks);
  else decodeDense(dtype, bytes, y);
  return y;
}
