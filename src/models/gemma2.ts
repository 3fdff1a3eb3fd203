/** Gemma 2: post-norms, soft caps on attention and logits, own attention scale, every other layer slides. @module */
import { baseConfig } from "./base.ts";
import type { Family } from "./config.ts";
import { gemmaDepartures, refuseGemma } from "./gemma.ts";
import { configFromGguf, f32, ggufBase, ggufNumber, ggufRope, refuse, u32 } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { number, slides } from "./settings.ts";

/** llama.cpp knows the 27B model by its number of layers and scales its attention by dim/heads (gemma2.cpp). */
const LAYERS_27B = 46;

/** The family. */
export const gemma2: Family = {
  hfTypes: ["gemma2"],
  ggufArch: "gemma2",
  config(hf) {
    const window = hf.sliding_window === null ? 0 : number(hf, "sliding_window", 4096);
    const layers = slides(hf, number(hf, "num_hidden_layers"), (n) => n % 2 === 0);
    const cap = (key: string, fallback: number) => hf[key] === null ? 0 : number(hf, key, fallback);
    return baseConfig("gemma2", hf, {
      ...gemmaDepartures(hf),
      maxPos: 8192,
      postNorms: true,
      scalar: number(hf, "query_pre_attn_scalar", 256),
      attnSoftcap: cap("attn_logit_softcapping", 50),
      logitSoftcap: cap("final_logit_softcapping", 30),
      window: (n) => layers[n] ? window : 0,
    });
  },
  fromGguf(file) {
    const base = configFromGguf(file, "gemma2", "gemma2");
    const is27B = base.num_hidden_layers === LAYERS_27B;
    return {
      ...base,
      tie_word_embeddings: true,
      sliding_window: ggufNumber(file, "gemma2", "attention.sliding_window") ?? 4096,
      attn_logit_softcapping: ggufNumber(file, "gemma2", "attn_logit_softcapping") ?? 50,
      final_logit_softcapping: ggufNumber(file, "gemma2", "final_logit_softcapping") ?? 30,
      query_pre_attn_scalar: is27B ? Number(base.hidden_size) / Number(base.num_attention_heads) : base.head_dim,
    };
  },
  tensors: tensorNames({ plusOne: true, postNorms: true }),
  ggufMeta(c, hf) {
    refuseGemma(c, "gemma2", c.layers === LAYERS_27B ? c.dim / c.heads : c.headDim);
    for (let n = 0; n < c.layers; n++) {
      if ((c.window(n) > 0) !== (n % 2 === 0)) refuse("gemma2", `layer ${n}'s window of ${c.window(n)}`);
    }
    return new Map([
      ...ggufBase(c, "gemma2"),
      ...ggufRope(c, hf, "gemma2", { factors: false }),
      ["gemma2.attention.sliding_window", u32(c.window(0))],
      ["gemma2.attn_logit_softcapping", f32(c.attnSoftcap)],
      ["gemma2.final_logit_softcapping", f32(c.logitSoftcap)],
    ]);
  },
  ggufExtra: () => [],
};
