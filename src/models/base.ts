/**
 * What most families' configs have in common: transformers' field names in, `ModelConfig` out. A family passes what
 * departs from llama.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import type { ModelConfig } from "../nn/config.ts";
import type { HfConfig } from "./config.ts";
import { readRope, ropeOf, ropeTurn } from "./rope.ts";
import { activation, flag, id, ids, number, size } from "./settings.ts";

/** A family's own defaults (its configuration_*.py) and rules. */
export interface Departures {
  readonly theta?: number;
  readonly eps?: number;
  readonly maxPos?: number;
  /** Head size when the config has none; default dim / heads. */
  readonly headDim?: number;
  readonly tied?: boolean;
  /** The padding token of a config that names none. */
  readonly pad?: number;
  readonly act?: string;
  readonly plusOne?: boolean;
  readonly postNorms?: boolean;
  readonly qkNorm?: boolean;
  readonly fused?: boolean;
  readonly bias?: ModelConfig["bias"];
  readonly scaleEmbedding?: boolean;
  readonly attnSoftcap?: number;
  readonly logitSoftcap?: number;
  /** Attention is scaled by this to the power -1/2; default the head size. */
  readonly scalar?: number;
  readonly window?: (layer: number) => number;
  /** Key of nested rope parameters of a layer. */
  readonly ropeKey?: (layer: number) => string;
  readonly rotates?: (layer: number) => boolean;
  /** partial_rotary_factor counts. */
  readonly partial?: boolean;
  /** Default theta of a layer, where layers differ. */
  readonly thetaOf?: (layer: number) => number;
}

/** Builds the configuration. @throws {ConfigError} naming the field that does not fit */
export function baseConfig(arch: string, hf: HfConfig, d: Departures): ModelConfig {
  const dim = size(hf, "hidden_size"), heads = size(hf, "num_attention_heads");
  const kvHeads = size(hf, "num_key_value_heads", heads), layers = size(hf, "num_hidden_layers");
  const headDim = size(hf, "head_dim", d.headDim ?? Math.floor(dim / heads));
  if (heads % kvHeads) {
    throw new ConfigError(`Cannot share ${kvHeads} key heads among ${heads} query heads: it does not divide evenly`);
  }
  const maxPos = size(hf, "max_position_embeddings", d.maxPos);
  const theta = (n: number) => d.thetaOf?.(n) ?? d.theta ?? 10000;
  const ropes = Array.from({ length: layers }, (_, n) => {
    if (d.rotates && !d.rotates(n)) return null;
    return readRope(hf, { theta: theta(n), headDim, maxPos, layerType: d.ropeKey?.(n), partial: d.partial });
  });
  return {
    arch,
    vocab: size(hf, "vocab_size"),
    dim,
    layers,
    heads,
    kvHeads,
    headDim,
    ffn: size(hf, "intermediate_size"),
    maxPos,
    norm: { kind: "rms", eps: number(hf, "rms_norm_eps", d.eps ?? 1e-6), plusOne: d.plusOne ?? false },
    act: activation(d.act ?? hf.hidden_act ?? "silu"),
    postNorms: d.postNorms ?? false,
    bias: d.bias ?? { qkv: false, o: false, mlp: false },
    qkNorm: d.qkNorm ?? false,
    fused: d.fused ?? false,
    tied: flag(hf, "tie_word_embeddings", d.tied ?? false),
    embedScale: d.scaleEmbedding ? Math.sqrt(dim) : 1,
    attnScale: 1 / Math.sqrt(d.scalar ?? headDim),
    attnSoftcap: d.attnSoftcap ?? 0,
    logitSoftcap: d.logitSoftcap ?? 0,
    ropeTurn: Math.min(...ropes.map((r) => r ? ropeTurn(r) : Infinity)),
    rope: (layer, length) => ropes[layer] && ropeOf(ropes[layer], length),
    window: d.window ?? (() => 0),
    eos: ids(hf, "eos_token_id"),
    bos: id(hf, "bos_token_id"),
    pad: hf.pad_token_id === undefined ? d.pad ?? null : id(hf, "pad_token_id"),
  };
}
