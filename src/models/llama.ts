/** Llama 1 to 3.x, and what calls itself so (SmolLM2, TinyLlama, Yi, DeepSeek-R1-Distill-Llama). @module */
import { baseConfig } from "./base.ts";
import type { Family } from "./config.ts";
import { configFromGguf, ggufBase, ggufRope, refuseWindows, ropeFreqs, u32 } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { flag } from "./settings.ts";

/** The base every other family departs from. */
export const llama: Family = {
  hfTypes: ["llama"],
  ggufArch: "llama",
  config(hf) {
    const attention = flag(hf, "attention_bias", false);
    const bias = { qkv: attention, o: attention, mlp: flag(hf, "mlp_bias", false) };
    return baseConfig("llama", hf, { maxPos: 2048, bias });
  },
  fromGguf(file) {
    return {
      ...configFromGguf(file, "llama", "llama"),
      attention_bias: file.has("blk.0.attn_q.bias"),
      mlp_bias: file.has("blk.0.ffn_gate.bias"),
    };
  },
  tensors: tensorNames({ permuted: true }),
  ggufMeta(c, hf) {
    refuseWindows(c, "llama");
    const rope = ggufRope(c, hf, "llama", { factors: true });
    return new Map([...ggufBase(c, "llama"), ...rope, ["llama.vocab_size", u32(c.vocab)]]);
  },
  ggufExtra: ropeFreqs,
};
