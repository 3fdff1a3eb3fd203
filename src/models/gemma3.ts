/** Gemma 3 (text): q/k norms, five sliding layers with base 10,000 to one full with base 1,000,000; no soft cap on attention. @module */
import { baseConfig } from "./base.ts";
import type { Family, HfConfig } from "./config.ts";
import { gemmaDepartures, refuseGemma } from "./gemma.ts";
import { configFromGguf, f32, ggufBase, ggufNumber, refuse, text, u32 } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { number, slides } from "./settings.ts";

/** llama.cpp knows the 27B model by its number of layers (gemma3.cpp). */
const LAYERS_27B = 62;
/** Every sixth layer is full (gemma3.cpp; configuration_gemma3.py). */
const PATTERN = 6;

const FULL = "full_attention", SLIDING = "sliding_attention";

/**
 * Either form as nested parameters. In the older one rope_scaling and rope_theta are for full layers only; what stands
 * beside the two kinds of layer in rope_parameters counts for neither (Gemma3TextConfig.convert_rope_params_to_dict).
 */
function nested(hf: HfConfig): HfConfig {
  const given = (hf.rope_parameters ?? {}) as Record<string, Record<string, unknown> | undefined>;
  const rope_parameters = {
    [FULL]: { rope_theta: number(hf, "rope_theta", 1e6), ...given[FULL], ...hf.rope_scaling as object | null },
    [SLIDING]: { rope_theta: number(hf, "rope_local_base_freq", 1e4), ...given[SLIDING] },
  };
  const { rope_scaling: _s, rope_theta: _t, ...rest } = hf;
  return { ...rest, rope_parameters };
}

/** The family. */
export const gemma3: Family = {
  hfTypes: ["gemma3_text"],
  ggufArch: "gemma3",
  config(given) {
    const hf = nested(given), window = hf.sliding_window === null ? 0 : number(hf, "sliding_window", 4096);
    const pattern = number(hf, "sliding_window_pattern", PATTERN);
    const layers = slides(hf, number(hf, "num_hidden_layers"), (n) => (n + 1) % pattern !== 0);
    return baseConfig("gemma3", hf, {
      ...gemmaDepartures(hf),
      maxPos: 131072,
      postNorms: true,
      qkNorm: true,
      scalar: number(hf, "query_pre_attn_scalar", 256),
      logitSoftcap: number(hf, "final_logit_softcapping", 0),
      window: (n) => layers[n] ? window : 0,
      ropeKey: (n) => layers[n] ? SLIDING : FULL,
      thetaOf: (n) => layers[n] ? 1e4 : 1e6,
    });
  },
  fromGguf(file) {
    const { rope_scaling, rope_theta: _, ...base } = configFromGguf(file, "gemma3", "gemma3_text");
    const is27B = base.num_hidden_layers === LAYERS_27B;
    return {
      ...base,
      tie_word_embeddings: true,
      sliding_window: ggufNumber(file, "gemma3", "attention.sliding_window") ?? null,
      query_pre_attn_scalar: is27B ? Number(base.hidden_size) / Number(base.num_attention_heads) : base.head_dim,
      final_logit_softcapping: ggufNumber(file, "gemma3", "final_logit_softcapping") ?? null,
      rope_parameters: {
        [FULL]: { ...rope_scaling as object, rope_theta: ggufNumber(file, "gemma3", "rope.freq_base") ?? 1e6 },
        [SLIDING]: { rope_theta: ggufNumber(file, "gemma3", "rope.freq_base_swa") ?? 1e4 },
      },
    };
  },
  tensors: tensorNames({ plusOne: true, postNorms: true, qkNorms: true }),
  ggufMeta(c, given) {
    refuseGemma(c, "gemma3", c.layers === LAYERS_27B ? c.dim / c.heads : c.headDim);
    for (let n = 0; n < c.layers; n++) {
      if ((c.window(n) > 0) !== ((n + 1) % PATTERN !== 0)) refuse("gemma3", `layer ${n}'s window of ${c.window(n)}`);
    }
    const rope = nested(given).rope_parameters as Record<string, Record<string, unknown>>;
    const full = rope[FULL] ?? {}, type = String(full.rope_type ?? full.type ?? "default");
    if (type !== "default" && type !== "linear") refuse("gemma3", `rope type '${type}'`);
    const local = String(rope[SLIDING]?.rope_type ?? rope[SLIDING]?.type ?? "default");
    if (local !== "default") refuse("gemma3", `rope type '${local}' in sliding layers`);
    return new Map([
      ...ggufBase(c, "gemma3"),
      ["gemma3.attention.sliding_window", u32(c.window(0))],
      ["gemma3.rope.freq_base", f32(Number(full.rope_theta ?? 1e6))],
      ["gemma3.rope.freq_base_swa", f32(Number(rope[SLIDING]?.rope_theta ?? 1e4))],
      ...(type === "linear"
        ? [
          ["gemma3.rope.scaling.type", text("linear")] as const,
          ["gemma3.rope.scaling.factor", f32(Number(full.factor))] as const,
        ]
        : []),
      ...(c.logitSoftcap ? [["gemma3.final_logit_softcapping", f32(c.logitSoftcap)] as const] : []),
    ]);
  },
  ggufExtra: () => [],
};
