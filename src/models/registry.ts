/** Which families there are, and which one a config or a GGUF belongs to. @module */
import { ConfigError } from "../core/errors.ts";
import type { Family, HfConfig } from "./config.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3 } from "./gemma3.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import { smollm3 } from "./smollm3.ts";

/** All families; for a GGUF the first of an arch counts, so llama stands before mistral. */
export const FAMILIES: readonly Family[] = [llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3, phi3, smollm3];

/** `model_type` values this build can train. */
export const MODEL_TYPES: readonly string[] = FAMILIES.flatMap((f) => f.hfTypes);

/** Fields that mean something beyond a plain decoder, with what to call it. */
const BEYOND: Readonly<Record<string, string>> = {
  num_local_experts: "mixture of experts",
  num_experts: "mixture of experts",
  vision_config: "a vision part",
  audio_config: "an audio part",
  per_layer_config: "layers that differ from one another",
  quantization_config: "weights quantised in another library's format",
};

/**
 * The family of a transformers config.
 * @throws {ConfigError} for an unknown model_type, experts, vision, foreign quantisation, or attention in both directions
 * (transformers' masks ask `is_causal` of any config), naming what is supported
 */
export function familyOf(hf: HfConfig): Family {
  const type = hf.model_type, family = FAMILIES.find((f) => f.hfTypes.includes(String(type)));
  const beyond = Object.keys(BEYOND).find((k) => hf[k] !== undefined && hf[k] !== null && hf[k] !== 0);
  if (beyond) {
    throw new ConfigError(
      `Cannot use this model: its config has ${beyond}, which is ${BEYOND[beyond]}; plain decoders in f32, f16, bf16 ` +
        `or GGUF blocks are supported`,
    );
  }
  if (hf.is_causal !== undefined && !hf.is_causal) {
    throw new ConfigError(
      `Cannot use this model: its config has is_causal ${hf.is_causal}, and attention here is causal`,
    );
  }
  if (family) return family;
  throw new ConfigError(`Cannot use a model of type '${type}': this build has ${MODEL_TYPES.join(", ")}`);
}

/** The family of a GGUF's `general.architecture`. @throws {ConfigError} naming the supported ones */
export function familyOfGguf(arch: unknown): Family {
  const family = FAMILIES.find((f) => f.ggufArch === arch);
  if (family) return family;
  const known = [...new Set(FAMILIES.map((f) => f.ggufArch))].join(", ");
  throw new ConfigError(`Cannot use a GGUF of architecture '${arch}': this build has ${known}`);
}
