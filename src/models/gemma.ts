/** Gemma 1: norm weight 1 + w, embedding times √dim, GELU-tanh, head tied to the embedding. @module */
import { ConfigError } from "../core/errors.ts";
import { baseConfig, type Departures } from "./base.ts";
import type { Family, HfConfig, ModelConfig } from "./config.ts";
import { configFromGguf, ggufBase, ggufRope, refuse, refuseBias, refuseWindows } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { flag } from "./settings.ts";

/** The activation where a config names none. */
const TANH = "gelu_pytorch_tanh";

/**
 * What gemma 1, 2 and 3 share.
 * @throws {ConfigError} for attention in both directions (EmbeddingGemma)
 */
export function gemmaDepartures(hf: HfConfig): Departures {
  if (flag(hf, "use_bidirectional_attention", false)) {
    throw new ConfigError("Cannot use this model: use_bidirectional_attention is set, and attention here is causal");
  }
  const attention = flag(hf, "attention_bias", false);
  return {
    plusOne: true,
    scaleEmbedding: true,
    tied: true,
    pad: 0,
    headDim: 256,
    act: String(hf.hidden_activation ?? TANH),
    bias: { qkv: attention, o: attention, mlp: false },
  };
}

/** Gemma 1 reads hidden_act alone, in which the first files' "gelu" means the tanh form (configuration_gemma.py). */
const gemma1Act = (hf: HfConfig): string => {
  const act = String(hf.hidden_act ?? TANH);
  return act === "gelu" ? TANH : act;
};

/** Refuses what llama.cpp's gemma graphs do not do. `scalar`: attention is scaled by its power -1/2 there. */
export function refuseGemma(c: ModelConfig, arch: string, scalar: number): void {
  refuseBias(c, arch);
  if (!c.tied) refuse(arch, "a head apart from the embedding");
  if (Math.abs(c.attnScale * Math.sqrt(scalar) - 1) > 1e-6) {
    refuse(arch, `an attention scale of ${c.attnScale} (the runtime has ${1 / Math.sqrt(scalar)})`);
  }
}

/** The family. */
export const gemma: Family = {
  hfTypes: ["gemma"],
  ggufArch: "gemma",
  config: (hf) => baseConfig("gemma", hf, { ...gemmaDepartures(hf), act: gemma1Act(hf), maxPos: 8192 }),
  fromGguf: (file) => ({ ...configFromGguf(file, "gemma", "gemma"), tie_word_embeddings: true }),
  tensors: tensorNames({ plusOne: true }),
  ggufMeta(c, hf) {
    refuseGemma(c, "gemma", c.headDim);
    refuseWindows(c, "gemma");
    return new Map([...ggufBase(c, "gemma"), ...ggufRope(c, hf, "gemma", { factors: false })]);
  },
  ggufExtra: () => [],
};
