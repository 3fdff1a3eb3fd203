/**
 * What tells one decoder-only family from another, as data; and what one family's file says.
 * @module
 */
import type { Act, NormOpts } from "../core/backend.ts";

/** Inverse frequencies of one layer, f64 on the host; `factor` multiplies cos and sin (yarn, longrope). */
export interface Rope {
  freqs: Float64Array /* [rotary/2] */;
  factor: number;
}

/** Everything the decoder needs to know. Sizes in elements. */
export interface ModelConfig {
  readonly arch: string;
  readonly vocab: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  /** Longest sequence the positions were trained for. */
  readonly maxPos: number;
  readonly norm: NormOpts;
  readonly act: Act;
  readonly postNorms: boolean;
  readonly bias: { qkv: boolean; o: boolean; mlp: boolean };
  readonly qkNorm: boolean;
  readonly tied: boolean;
  readonly embedScale: number;
  readonly attnScale: number;
  readonly attnSoftcap: number;
  readonly logitSoftcap: number;
  /** null: no rotary embedding in this layer. `length` is the longest sequence of the run (dynamic, longrope). */
  rope(layer: number, length: number): Rope | null;
  /** 0: full attention in this layer. */
  window(layer: number): number;
  /** Token ids at which generation ends, from config and generation_config. */
  readonly eos: readonly number[];
  readonly bos: number | null;
  readonly pad: number | null;
}

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
