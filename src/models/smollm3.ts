/** SmolLM 3: llama in which some layers do not rotate (NoPE, Yang et al. 2025). @module */
import { ConfigError } from "../core/errors.ts";
import { baseConfig } from "./base.ts";
import type { Family, HfConfig } from "./config.ts";
import { configFromGguf, ggufBase, ggufRope, refuse, refuseBias, refuseWindows, u32 } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { flag, number, slides } from "./settings.ts";

/** Default rope_theta (configuration_smollm3.py). */
const THETA = 2e6;

/** Which layers rotate: no_rope_layers has 1 where they do, in spite of its name. */
function rotating(hf: HfConfig): boolean[] {
  const layers = number(hf, "num_hidden_layers"), every = number(hf, "no_rope_layer_interval", 4);
  const given = hf.no_rope_layers;
  if (!Array.isArray(given)) return Array.from({ length: layers }, (_, n) => (n + 1) % every !== 0);
  if (given.length < layers) {
    throw new ConfigError(`Cannot read the model's config: ${given.length} no_rope_layers for ${layers} layers`);
  }
  return given.slice(0, layers).map((x) => Boolean(x));
}

/** The family. */
export const smollm3: Family = {
  hfTypes: ["smollm3"],
  ggufArch: "smollm3",
  config(hf) {
    const rotates = rotating(hf), attention = flag(hf, "attention_bias", false);
    // Explicit layer_types slide whatever use_sliding_window says: transformers' mask asks them alone.
    const sliding = flag(hf, "use_sliding_window", false) || Array.isArray(hf.layer_types);
    const window = sliding ? number(hf, "sliding_window", 0) : 0;
    const layers = slides(hf, rotates.length, (n) => !rotates[n]);
    return baseConfig("smollm3", hf, {
      theta: THETA,
      maxPos: 32768,
      tied: true,
      pad: 128004,
      bias: { qkv: attention, o: attention, mlp: flag(hf, "mlp_bias", false) },
      rotates: (n) => rotates[n],
      window: (n) => layers[n] ? window : 0,
    });
  },
  fromGguf: (file) => configFromGguf(file, "smollm3", "smollm3"),
  tensors: tensorNames({ permuted: true }),
  ggufMeta(c, hf) {
    refuseWindows(c, "smollm3");
    refuseBias(c, "smollm3");
    // The runtime leaves the rotation out of every fourth layer, and the file cannot say otherwise.
    for (let n = 0; n < c.layers; n++) {
      if ((c.rope(n, 1) === null) !== (n % 4 === 3)) {
        refuse("smollm3", `layer ${n}'s place among the layers without rope`);
      }
    }
    const rope = ggufRope(c, hf, "smollm3", { factors: false, theta: THETA });
    return new Map([...ggufBase(c, "smollm3"), ...rope, ["smollm3.vocab_size", u32(c.vocab)]]);
  },
  ggufExtra: () => [],
};
