/**
 * What tells one decoder-only family from another, as data.
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
  /** q, k, v are one linear, and gate, up another (phi3): then LoRA sees them as one too. */
  readonly fused: boolean;
  readonly tied: boolean;
  readonly embedScale: number;
  readonly attnScale: number;
  readonly attnSoftcap: number;
  readonly logitSoftcap: number;
  /** Longest sequence whose frequencies are those of a short one; Infinity where they do not depend on it. */
  readonly ropeTurn: number;
  /** null: no rotary embedding in this layer. `length` is the longest sequence of the run (dynamic, longrope). */
  rope(layer: number, length: number): Rope | null;
  /** 0: full attention in this layer. */
  window(layer: number): number;
  /** Token ids at which generation ends, from config and generation_config. */
  readonly eos: readonly number[];
  readonly bos: number | null;
  readonly pad: number | null;
}
