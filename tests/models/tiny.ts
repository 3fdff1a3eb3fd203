/** Tiny random models of every family, opened from memory as if from a folder. */
import type { Backend } from "../../src/core/backend.ts";
import { Random } from "../../src/core/philox.ts";
import { memoryBytes } from "../../src/formats/bytes.ts";
import type { LoraOptions } from "../../src/models/adapter.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { expandNames } from "../../src/models/names.ts";
import { familyOf } from "../../src/models/registry.ts";
import type { ModelSource } from "../../src/models/source.ts";

/** Sizes that no tile divides: 3 layers, 2 key heads for 4 query heads, vocabulary 37. */
const SIZES = {
  vocab_size: 37,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  eos_token_id: 2,
  tie_word_embeddings: true,
};

/** A config of each family, with what tells it from llama switched on. */
export const TINY: Readonly<Record<string, HfConfig>> = {
  llama: { ...SIZES, model_type: "llama", attention_bias: true, mlp_bias: true, tie_word_embeddings: false },
  mistral: { ...SIZES, model_type: "mistral", sliding_window: 3 },
  qwen2: { ...SIZES, model_type: "qwen2" },
  qwen3: { ...SIZES, model_type: "qwen3" },
  gemma: { ...SIZES, model_type: "gemma" },
  gemma2: { ...SIZES, model_type: "gemma2", sliding_window: 3, query_pre_attn_scalar: 5, attn_logit_softcapping: 4 },
  gemma3: { ...SIZES, model_type: "gemma3_text", sliding_window: 3, sliding_window_pattern: 3 },
  phi3: { ...SIZES, model_type: "phi3", partial_rotary_factor: 0.7, tie_word_embeddings: false },
  smollm3: { ...SIZES, model_type: "smollm3", no_rope_layers: [1, 0, 1] },
};

/** A model in memory; norms near 1 (or 0 where the weight is 1 + w), everything else normal. */
export function tinySource(hf: HfConfig, seed = 7): ModelSource {
  const family = familyOf(hf), config = family.config(hf), random = new Random(seed);
  const tensors = expandNames(family.tensors, config).map((t) => {
    const n = t.shape.reduce((a, b) => a * b, 1), scale = t.shape.length > 1 ? 1 / Math.sqrt(t.shape[1]) : 0.2;
    const middle = t.ours.includes("norm") && !config.norm.plusOne ? 1 : 0;
    const values = Float32Array.from({ length: n }, () => middle + scale * random.normal());
    const source = memoryBytes(new Uint8Array(values.buffer), t.hf);
    return { ...t, stored: { name: t.hf, dtype: "f32" as const, shape: t.shape, source, offset: 0, bytes: 4 * n } };
  });
  return { path: "memory", kind: "safetensors", family, hf, config, tensors, gguf: null, close: () => {} };
}

/** peft's defaults with rank 2 on every linear of a block. */
export function tinyLora(o: Partial<LoraOptions> = {}): LoraOptions {
  return {
    ...{ r: 2, alpha: 3, rslora: false, dora: false, dropout: 0, targetModules: "all-linear", rankPattern: {} },
    ...{ alphaPattern: {}, modulesToSave: [], bias: "none", baseModel: null, ...o },
  };
}

/** Gives every trained tensor random values, so that no path is hidden by a zero. */
export function shake(be: Backend, params: readonly { value: { shape: readonly number[] } }[], seed = 11): void {
  const random = new Random(seed);
  for (const p of params as { value: Parameters<Backend["upload"]>[0] }[]) {
    const n = p.value.shape.reduce((a, b) => a * b, 1);
    be.upload(p.value, Float32Array.from({ length: n }, () => 0.3 * random.normal()));
  }
}
