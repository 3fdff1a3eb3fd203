/**
 * What tells one decoder-only family from another, as data; and what one family's file says.
 * @module
 */
import type { ModelConfig } from "../nn/config.ts";
export type { ModelConfig, Rope } from "../nn/config.ts";

/** One tensor of a family under its three names. `{n}` in a name stands for the layer. */
export interface TensorName {
  /** Ours, e.g. `layers.{n}.q`. */
  readonly ours: string;
  readonly hf: string;
  readonly gguf: string;
  /** How the GGUF rows differ from ours: llama's permuted rotary rows, gemma's +1. */
  readonly gguf_as?: "permuteQ" | "permuteK" | "plusOne";
  /** Rows of a fused tensor that are ours: [from, to) in rows. */
  readonly part?: (c: ModelConfig) => readonly [number, number];
  readonly shape: (c: ModelConfig) => readonly number[];
  /** Absent when this returns false (biases, tied heads). */
  readonly when?: (c: ModelConfig) => boolean;
}

/** A family: the only place that knows its HF and GGUF names. */
export interface Family {
  readonly hfTypes: readonly string[];
  readonly ggufArch: string;
  config(hf: Record<string, unknown>): ModelConfig;
  /** An HF-style config from GGUF metadata, so that `config` is the only reader of settings. */
  fromGguf(meta: ReadonlyMap<string, unknown>): Record<string, unknown>;
  readonly tensors: readonly TensorName[];
  /** `{arch}.*` keys for export. @throws {ConfigError} naming what a GGUF of this arch cannot express */
  ggufMeta(c: ModelConfig, hf: Record<string, unknown>): Record<string, number | string | boolean>;
}
