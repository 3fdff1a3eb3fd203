/**
 * What reading and writing GGUF share: value types, tensor types and their numbers. Source: ggml/include/gguf.h and ggml.h.
 * @module
 */
import type { StoredTensor, StoredType } from "./stored.ts";

/** Names of metadata value types; the index is the number in the file. */
export const VALUE_TYPES = [
  ...["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"] as const,
] as const;

/** A scalar's type. */
export type ValueType = Exclude<(typeof VALUE_TYPES)[number], "array">;

/** A metadata value: 64-bit integers are numbers where they are safe ones, bigint otherwise. */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | readonly string[]
  | readonly boolean[]
  | NumberArray;

/** An array of numbers of the type it has in the file. */
export type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

/** How a value lies in the file; `array` says that it is a list of them. */
export interface GgufType {
  readonly type: ValueType;
  readonly array: boolean;
}

/** An opened GGUF file: everything but the tensors' bytes. */
export interface Gguf {
  readonly version: number;
  readonly meta: ReadonlyMap<string, GgufValue>;
  /** The file's own types, for writing the same value again. */
  readonly types: ReadonlyMap<string, GgufType>;
  /** In the file's order; shapes are row-major (the reverse of ggml's ne). */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Bytes: every tensor starts at a multiple of it. */
  readonly alignment: number;
  close(): void;
}

/** Longest tensor name llama.cpp reads, in bytes without the terminating zero (GGML_MAX_NAME - 1). */
export const MAX_NAME = 63;

/** Bytes of a number of each type. */
export const VALUE_BYTES: Readonly<Record<Exclude<ValueType, "string">, number>> = {
  ...{ u8: 1, i8: 1, bool: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 },
};

/** ggml_type numbers. */
export const GGML_TYPES: Readonly<Partial<Record<StoredType, number>>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q5_0: 6,
  q5_1: 7,
  q8_0: 8,
  q8_1: 9,
  q2_k: 10,
  q3_k: 11,
  q4_k: 12,
  q5_k: 13,
  q6_k: 14,
  q8_k: 15,
  iq2_xxs: 16,
  iq2_xs: 17,
  iq3_xxs: 18,
  iq1_s: 19,
  iq4_nl: 20,
  iq3_s: 21,
  iq2_s: 22,
  iq4_xs: 23,
  i8: 24,
  i16: 25,
  i32: 26,
  i64: 27,
  f64: 28,
  iq1_m: 29,
  bf16: 30,
  tq1_0: 34,
  tq2_0: 35,
  mxfp4: 39,
};
