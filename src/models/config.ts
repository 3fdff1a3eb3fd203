/**
 * What one family's file says: how its config is read, and what its tensors are called in either kind of file.
 * @module
 */
import type { GgufType, GgufValue } from "../formats/gguf.ts";
import type { ModelConfig } from "../nn/config.ts";
export type { ModelConfig, Rope } from "../nn/config.ts";

/** A transformers config: config.json as parsed, or the same made from GGUF metadata. */
export type HfConfig = Readonly<Record<string, unknown>>;

/** One tensor of a family under its three names. `{n}` in a name stands for the layer. */
export interface TensorName {
  /** Ours: `layers.{n}.q` for a weight, `layers.{n}.q.bias` for its bias. */
  readonly ours: string;
  readonly hf: string;
  readonly gguf: string;
  /** How the GGUF values differ from ours: llama's permuted rotary rows, gemma's +1. */
  readonly ggufAs?: "permuteQ" | "permuteK" | "plusOne";
  readonly shape: (c: ModelConfig) => readonly number[];
  /** Absent when this returns false (biases, tied heads). */
  readonly when?: (c: ModelConfig) => boolean;
}

/** A typed GGUF metadata value. */
export interface GgufField {
  readonly value: GgufValue;
  readonly type: GgufType;
}

/** A tensor a GGUF has beyond the weights, made from the config (rotary factors); f32. */
export interface GgufExtra {
  readonly name: string;
  readonly values: Float32Array<ArrayBuffer>;
}

/** What `fromGguf` may ask of the file. */
export interface GgufReader {
  readonly meta: ReadonlyMap<string, GgufValue>;
  /** Values of a small tensor; null when the file has none of this name. */
  floats(name: string): Float32Array | null;
  has(name: string): boolean;
  /** Shape of a tensor, row-major. */
  shape(name: string): readonly number[] | null;
}

/** A family: the only place that knows its HF and GGUF names. */
export interface Family {
  /** Values of `model_type`. */
  readonly hfTypes: readonly string[];
  readonly ggufArch: string;
  /** @throws {ConfigError} naming the field that this build cannot follow */
  config(hf: HfConfig): ModelConfig;
  /** A transformers config from GGUF metadata, so that `config` is the only reader of settings. */
  fromGguf(file: GgufReader): HfConfig;
  readonly tensors: readonly TensorName[];
  /**
   * `{arch}.*` keys for export, without `general.*` and `tokenizer.*`.
   * @throws {ConfigError} naming what a GGUF of this arch cannot express
   */
  ggufMeta(c: ModelConfig, hf: HfConfig): ReadonlyMap<string, GgufField>;
  /** Tensors a GGUF has beyond `tensors`. */
  ggufExtra(c: ModelConfig, hf: HfConfig): readonly GgufExtra[];
}
