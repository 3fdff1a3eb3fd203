/** Phi 3, 3.5 and 4: fused qkv_proj and gate_up_proj, longrope, partial rotary. @module */
import { baseConfig } from "./base.ts";
import type { Family, HfConfig } from "./config.ts";
import { configFromGguf, f32, ggufBase, ggufNumber, refuse, refuseWidth, ropeType, u32 } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { ropeFields } from "./rope.ts";
import { number } from "./settings.ts";

/** Old files say "su" or "yarn" and mean longrope (configuration_phi3.py). */
const LONGROPE = ["longrope", "su", "yarn"];

/** The config with its rope type under today's name. */
function renamed(hf: HfConfig): HfConfig {
  if (!LONGROPE.includes(ropeType(hf))) return hf;
  return { ...hf, rope_scaling: { ...ropeFields(hf), rope_type: "longrope" } };
}

const factors = (hf: HfConfig, key: string): number[] => ropeFields(hf)[key] as number[];

/** The trained length; what stands inside the rope parameters does not count (configuration_phi3.py). */
const trained = (hf: HfConfig): number => number(hf, "original_max_position_embeddings", 4096);

/** The family. */
export const phi3: Family = {
  hfTypes: ["phi3"],
  ggufArch: "phi3",
  config(hf) {
    const window = hf.sliding_window === null ? 0 : number(hf, "sliding_window", 0);
    const withLength = { ...renamed(hf), original_max_position_embeddings: trained(hf) };
    return baseConfig("phi3", withLength, {
      ...{ maxPos: 4096, eps: 1e-5, fused: true, partial: true, pad: 32000 },
      window: () => window,
    });
  },
  fromGguf(file) {
    const base = configFromGguf(file, "phi3", "phi3");
    const long = file.floats("rope_factors_long.weight"), short = file.floats("rope_factors_short.weight");
    const factor = ggufNumber(file, "phi3", "rope.scaling.attn_factor");
    const original = ggufNumber(file, "phi3", "rope.scaling.original_context_length");
    return {
      ...base,
      original_max_position_embeddings: original ?? base.max_position_embeddings,
      sliding_window: ggufNumber(file, "phi3", "attention.sliding_window") || null,
      ...(long && short
        ? {
          rope_scaling: {
            rope_type: "longrope",
            long_factor: [...long],
            short_factor: [...short],
            ...(factor === undefined ? {} : { attention_factor: factor }),
          },
        }
        : {}),
    };
  },
  tensors: tensorNames({ fused: true }),
  ggufMeta(c, given) {
    const hf = renamed(given), type = ropeType(hf);
    if (type !== "default" && type !== "longrope") refuse("phi3", `rope type '${type}'`);
    refuseWidth(c, "phi3");
    const { freqs, factor } = c.rope(0, 1)!, f = ropeFields(hf), theta = Number(f.rope_theta ?? hf.rope_theta ?? 10000);
    const rotated = Math.trunc(c.headDim * Number(f.partial_rotary_factor ?? hf.partial_rotary_factor ?? 1));
    if (rotated % 2) refuse("phi3", `an odd number of rotated features (${rotated})`);
    return new Map([
      ...ggufBase(c, "phi3"),
      ["phi3.rope.scaling.original_context_length", u32(trained(hf))],
      ["phi3.rope.dimension_count", u32(2 * freqs.length)],
      ["phi3.rope.freq_base", f32(theta)],
      // The runtime reads the window and does not use it; 0 marks Phi-4.
      ["phi3.attention.sliding_window", u32(c.window(0))],
      ...(type === "longrope" ? [["phi3.rope.scaling.attn_factor", f32(factor)] as const] : []),
    ]);
  },
  ggufExtra(_, hf) {
    if (ropeType(renamed(hf)) !== "longrope") return [];
    return (["long", "short"] as const).map((kind) => ({
      name: `rope_factors_${kind}.weight`,
      values: Float32Array.from(factors(hf, `${kind}_factor`)),
    }));
  },
};
