/**
 * A tensor as it lies in a file, whatever the file's format: name, element type, shape, place.
 * @module
 */
import { bytesOf, type DType, DTYPES } from "../core/dtype.ts";
import { ConfigError } from "../core/errors.ts";
import type { ByteSource } from "./bytes.ts";
import { dequantize } from "./dequantize.ts";

/** Element types that files carry and no backend computes with; bytes and elements of a block. */
export const FOREIGN_TYPES = {
  f64: { block: 1, bytes: 8 },
  i64: { block: 1, bytes: 8 },
  u64: { block: 1, bytes: 8 },
  u32: { block: 1, bytes: 4 },
  i16: { block: 1, bytes: 2 },
  u16: { block: 1, bytes: 2 },
  i8: { block: 1, bytes: 1 },
  bool: { block: 1, bytes: 1 },
  fp8_e5m2: { block: 1, bytes: 1 },
  q8_1: { block: 32, bytes: 36 },
  q8_k: { block: 256, bytes: 292 },
  iq2_xxs: { block: 256, bytes: 66 },
  iq2_xs: { block: 256, bytes: 74 },
  iq3_xxs: { block: 256, bytes: 98 },
  iq1_s: { block: 256, bytes: 50 },
  iq3_s: { block: 256, bytes: 110 },
  iq2_s: { block: 256, bytes: 82 },
  iq1_m: { block: 256, bytes: 56 },
  tq1_0: { block: 256, bytes: 54 },
  tq2_0: { block: 256, bytes: 66 },
  mxfp4: { block: 32, bytes: 17 },
} as const;

/** Any element type a file may name. */
export type StoredType = DType | keyof typeof FOREIGN_TYPES;

/** A tensor in a file. `shape` is row-major as in PyTorch, also for GGUF; a block format runs along the last axis. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly source: ByteSource;
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** Elements and bytes of a block of any stored type. */
export function blockOf(t: StoredType): { readonly block: number; readonly bytes: number } {
  return t in FOREIGN_TYPES ? FOREIGN_TYPES[t as keyof typeof FOREIGN_TYPES] : DTYPES[t as DType];
}

/** The type as one of ours. @throws {ConfigError} naming the tensor and its type when no code here can use it */
export function usableType(t: StoredTensor): DType {
  if (t.dtype in DTYPES) return t.dtype as DType;
  throw new ConfigError(`Cannot use tensor '${t.name}' of '${t.source.name}': its type ${t.dtype} is not supported`);
}

/** The tensor's bytes as they lie in the file, or those of rows [from, to) of its first axis. */
export function readBytes(t: StoredTensor, from = 0, to: number = t.shape[0] ?? 1): Uint8Array<ArrayBuffer> {
  if (from === 0 && to === (t.shape[0] ?? 1)) return t.source.read(t.offset, t.bytes);
  const first = t.shape[0] ?? 1;
  if (from < 0 || to > first || from > to) {
    throw new RangeError(`Cannot read rows ${from} to ${to} of '${t.name}': it has ${first}`);
  }
  const row = t.bytes / first;
  return t.source.read(t.offset + from * row, (to - from) * row);
}

/**
 * The tensor's values, or those of rows [from, to) of its first axis, as f32.
 * @throws {ConfigError} for element types without a decoder here
 */
export function readFloats(t: StoredTensor, from = 0, to: number = t.shape[0] ?? 1): Float32Array<ArrayBuffer> {
  const bytes = readBytes(t, from, to);
  if (t.dtype === "i64") return Float32Array.from(new BigInt64Array(bytes.buffer), Number);
  if (t.dtype === "f64") return Float32Array.from(new Float64Array(bytes.buffer));
  return dequantize(usableType(t), bytes);
}

/** Bytes a tensor of this type and shape takes. @throws {RangeError} when rows are no multiple of the block */
export function storedBytes(dtype: DType, shape: readonly number[]): number {
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  return rows * bytesOf(dtype, shape[shape.length - 1] ?? 1);
}
