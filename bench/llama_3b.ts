/** Llama-3.2-3B's shape and the LoRA that is measured on it, for the benchmarks. @module */
import { memoryBytes } from "../src/formats/bytes.ts";
import type { LoraOptions } from "../src/models/adapter.ts";
import { expandNames } from "../src/models/names.ts";
import { familyOf } from "../src/models/registry.ts";
import type { ModelSource } from "../src/models/source.ts";
import type { PlannedCheckpointing } from "../src/train/checkpointing.ts";

/** config.json of `layers` layers. */
export function llamaConfig(layers = 28) {
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 128256,
    hidden_size: 3072,
    num_hidden_layers: layers,
    num_attention_heads: 24,
    num_key_value_heads: 8,
    head_dim: 128,
    intermediate_size: 8192,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    hidden_act: "silu",
    tie_word_embeddings: true,
    bos_token_id: 128000,
    eos_token_id: 128001,
  };
}

/** r = 16 on all seven linears. */
export const LORA: LoraOptions = {
  r: 16,
  alpha: 16,
  rslora: false,
  dora: false,
  dropout: 0,
  targetModules: "all-linear",
  rankPattern: {},
  alphaPattern: {},
  modulesToSave: [],
  bias: "none",
  baseModel: null,
};

/** The model without its weights' bytes: enough to plan with. */
export function llamaWithoutWeights(layers = 28): ModelSource {
  const hf = llamaConfig(layers), family = familyOf(hf), config = family.config(hf);
  const tensors = expandNames(family.tensors, config).map((t) => {
    const bytes = 2 * t.shape.reduce((a, b) => a * b, 1), source = memoryBytes(new Uint8Array(0), t.hf);
    return { ...t, stored: { name: t.hf, dtype: "bf16" as const, shape: t.shape, source, offset: 0, bytes } };
  });
  return { path: "memory", kind: "safetensors", family, hf, config, tensors, gguf: null, close: () => {} };
}

/** A plan's bytes in GiB, and its levels as `0x27 4x1`. */
export function memoryLine({ checkpoint: { levels }, memory: m }: PlannedCheckpointing): string {
  const runs: [level: number, n: number][] = [], gib = (n: number) => (n / 2 ** 30).toFixed(2).padStart(6);
  for (const l of levels) {
    if (runs.at(-1)?.[0] === l) runs.at(-1)![1]++;
    else runs.push([l, 1]);
  }
  return `weights ${gib(m.weights)}, trained ${gib(m.params + m.grads + m.optimizer)}, activations ${gib(m.arena)}, ` +
    `total ${gib(m.total)} GiB (host ${gib(m.host)}); levels ${runs.map(([l, n]) => `${l}x${n}`).join(" ")}`;
}
