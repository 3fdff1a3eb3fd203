/**
 * Element types of tensors, dense and block-quantised, with the bytes each takes.
 * Block layouts are GGUF's (ggml-common.h) and bitsandbytes' nf4; their codecs live in formats/ and in the backends.
 * @module
 */

/** One value an element. */
export type Dense = "f32" | "bf16" | "f16" | "i32" | "u8" | "fp8_e4m3";

/** Blocks of 32 or 256 elements of a row with their scales inside (GGUF), or nf4 (QLoRA, blocks of 64). */
export type Quant =
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q8_0"
  | "q2_k"
  | "q3_k"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_nl"
  | "iq4_xs"
  | "nf4";

/**
 * e4m3 with one f32 scale for 128 x 128 elements of a matrix (DeepSeek-V3 report, section 3.3), the values kept a second time
 * transposed, for matrix units that take 8-bit operands along one axis only: e4m3 [R,C], e4m3 [C,R], f32 [R/128,C/128]. R
 * and C are multiples of 128. Not a block format: its rows cannot be taken apart.
 */
export type Tiled = "fp8_128";

/** Any element type. */
export type DType = Dense | Quant | Tiled;

/** Bytes of one block, elements of one block, the number the C ABI uses. */
export interface DTypeInfo {
  readonly code: number;
  readonly block: number;
  readonly bytes: number;
}

/** The one table of element types; `code` is the number in the C ABI and never changes once published. */
export const DTYPES: Readonly<Record<DType, DTypeInfo>> = {
  f32: { code: 0, block: 1, bytes: 4 },
  bf16: { code: 1, block: 1, bytes: 2 },
  f16: { code: 2, block: 1, bytes: 2 },
  i32: { code: 3, block: 1, bytes: 4 },
  u8: { code: 4, block: 1, bytes: 1 },
  fp8_e4m3: { code: 5, block: 1, bytes: 1 },
  q4_0: { code: 16, block: 32, bytes: 18 },
  q4_1: { code: 17, block: 32, bytes: 20 },
  q5_0: { code: 18, block: 32, bytes: 22 },
  q5_1: { code: 19, block: 32, bytes: 24 },
  q8_0: { code: 20, block: 32, bytes: 34 },
  q2_k: { code: 21, block: 256, bytes: 84 },
  q3_k: { code: 22, block: 256, bytes: 110 },
  q4_k: { code: 23, block: 256, bytes: 144 },
  q5_k: { code: 24, block: 256, bytes: 176 },
  q6_k: { code: 25, block: 256, bytes: 210 },
  iq4_nl: { code: 26, block: 32, bytes: 18 },
  iq4_xs: { code: 27, block: 256, bytes: 136 },
  // 64 nibbles and one f32 absmax: bitsandbytes without double quantisation.
  nf4: { code: 28, block: 64, bytes: 36 },
  fp8_128: { code: 29, block: 16384, bytes: 32772 },
};

/** True for block formats. */
export function isQuant(d: DType): d is Quant {
  return DTYPES[d].block > 1 && d !== "fp8_128";
}

/**
 * Bytes of `elements` consecutive elements of a row.
 * @throws {RangeError} when `elements` is no multiple of the block
 */
export function bytesOf(d: DType, elements: number): number {
  const { block, bytes } = DTYPES[d];
  if (elements % block !== 0) {
    throw new RangeError(`Cannot store ${elements} elements as ${d}: the block is ${block}`);
  }
  return (elements / block) * bytes;
}
