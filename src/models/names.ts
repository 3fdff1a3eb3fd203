/**
 * Tensor names that families share, as one table a kind of layer; a family's list is put together from these.
 * Names: transformers' modeling files; gguf-py's constants.py (TENSOR_NAMES).
 * @module
 */
import type { ModelConfig, TensorName } from "./config.ts";

const width = (c: ModelConfig) => c.heads * c.headDim;
const kvWidth = (c: ModelConfig) => c.kvHeads * c.headDim;

/** How a family's tensors depart from llama's. */
export interface NamingOptions {
  /** GGUF stores q and k rows in llama's interleaved order. */
  readonly permuted?: boolean;
  /** GGUF stores norm weights plus one (gemma). */
  readonly plusOne?: boolean;
  /** Norms after attention and feed-forward too (gemma 2 and 3). */
  readonly postNorms?: boolean;
  /** q/k norms (qwen 3, gemma 3). */
  readonly qkNorms?: boolean;
  /** qkv_proj and gate_up_proj (phi 3). */
  readonly fused?: boolean;
}

const HF = "model.layers.{n}.", OURS = "layers.{n}.", GGUF = "blk.{n}.";

function norm(ours: string, hf: string, gguf: string, o: NamingOptions, size = (c: ModelConfig) => c.dim): TensorName {
  const as = o.plusOne ? { ggufAs: "plusOne" as const } : {};
  return { ours, hf: `${hf}.weight`, gguf: `${gguf}.weight`, shape: (c) => [size(c)], ...as };
}

/** A linear's weight and its bias, if the config has one. */
function linear(
  names: readonly [ours: string, hf: string, gguf: string],
  out: (c: ModelConfig) => number,
  input: (c: ModelConfig) => number,
  bias: (c: ModelConfig) => boolean,
  ggufAs?: TensorName["ggufAs"],
): TensorName[] {
  const [ours, hf, gguf] = [OURS + names[0], HF + names[1], GGUF + names[2]], as = ggufAs ? { ggufAs } : {};
  return [
    { ours, hf: `${hf}.weight`, gguf: `${gguf}.weight`, shape: (c) => [out(c), input(c)], ...as },
    { ours: `${ours}.bias`, hf: `${hf}.bias`, gguf: `${gguf}.bias`, shape: (c) => [out(c)], when: bias, ...as },
  ];
}

function attentionNames(o: NamingOptions): TensorName[] {
  const dim = (c: ModelConfig) => c.dim, qkv = (c: ModelConfig) => c.bias.qkv;
  const out = linear(["o", "self_attn.o_proj", "attn_output"], dim, width, (c) => c.bias.o);
  if (o.fused) {
    const rows = (c: ModelConfig) => width(c) + 2 * kvWidth(c);
    return [...linear(["qkv", "self_attn.qkv_proj", "attn_qkv"], rows, dim, qkv), ...out];
  }
  return [
    ...linear(["q", "self_attn.q_proj", "attn_q"], width, dim, qkv, o.permuted ? "permuteQ" : undefined),
    ...linear(["k", "self_attn.k_proj", "attn_k"], kvWidth, dim, qkv, o.permuted ? "permuteK" : undefined),
    ...linear(["v", "self_attn.v_proj", "attn_v"], kvWidth, dim, qkv),
    ...out,
    ...(o.qkNorms
      ? ["q", "k"].map((p) =>
        norm(`${OURS}${p}_norm`, `${HF}self_attn.${p}_norm`, `${GGUF}attn_${p}_norm`, o, (c) => c.headDim)
      )
      : []),
  ];
}

function mlpNames(o: NamingOptions): TensorName[] {
  const dim = (c: ModelConfig) => c.dim, ffn = (c: ModelConfig) => c.ffn, bias = (c: ModelConfig) => c.bias.mlp;
  const down = linear(["down", "mlp.down_proj", "ffn_down"], dim, ffn, bias);
  // llama.cpp's phi3 keeps gate and up in the tensor called ffn_up (conversion/phi.py).
  if (o.fused) return [...linear(["gate_up", "mlp.gate_up_proj", "ffn_up"], (c) => 2 * c.ffn, dim, bias), ...down];
  return [
    ...linear(["gate", "mlp.gate_proj", "ffn_gate"], ffn, dim, bias),
    ...linear(["up", "mlp.up_proj", "ffn_up"], ffn, dim, bias),
    ...down,
  ];
}

/** A family's tensors: per model, then per layer. */
export function tensorNames(o: NamingOptions): readonly TensorName[] {
  const matrix = (c: ModelConfig) => [c.vocab, c.dim];
  const post = "post_attention_layernorm";
  return [
    { ours: "embed", hf: "model.embed_tokens.weight", gguf: "token_embd.weight", shape: matrix },
    norm("norm", "model.norm", "output_norm", o),
    { ours: "head", hf: "lm_head.weight", gguf: "output.weight", shape: matrix, when: (c) => !c.tied },
    norm(`${OURS}attn_norm`, `${HF}input_layernorm`, `${GGUF}attn_norm`, o),
    ...attentionNames(o),
    ...(o.postNorms
      ? [
        norm(`${OURS}attn_post_norm`, HF + post, `${GGUF}post_attention_norm`, o),
        norm(`${OURS}mlp_norm`, `${HF}pre_feedforward_layernorm`, `${GGUF}ffn_norm`, o),
        norm(`${OURS}mlp_post_norm`, `${HF}post_feedforward_layernorm`, `${GGUF}post_ffw_norm`, o),
      ]
      : [norm(`${OURS}mlp_norm`, HF + post, `${GGUF}ffn_norm`, o)]),
    ...mlpNames(o),
  ];
}

/** One tensor of one layer (or of none), with `{n}` filled in. */
export interface NamedTensor {
  readonly ours: string;
  readonly hf: string;
  readonly gguf: string;
  readonly ggufAs: TensorName["ggufAs"];
  readonly shape: readonly number[];
}

/** All tensors of a model of this configuration. */
export function expandNames(names: readonly TensorName[], c: ModelConfig): NamedTensor[] {
  return names.filter((t) => t.when?.(c) ?? true).flatMap((t) => {
    const layers = t.ours.includes("{n}") ? Array.from({ length: c.layers }, (_, n) => `${n}`) : [""];
    return layers.map((n) => ({
      ours: t.ours.replace("{n}", n),
      hf: t.hf.replace("{n}", n),
      gguf: t.gguf.replace("{n}", n),
      ggufAs: t.ggufAs,
      shape: t.shape(c),
    }));
  });
}
