/** Mistral 7B and its kin: llama with a sliding window; a GGUF of it is one of arch llama. @module */
import { baseConfig } from "./base.ts";
import type { Family } from "./config.ts";
import { llama } from "./llama.ts";
import { number, size, slides } from "./settings.ts";

/**
 * Every layer slides unless layer_types says which: such a config is Ministral's, under either name (AutoConfig). Its GGUF
 * side is llama's, which refuses the window unless it covers the whole context.
 */
export const mistral: Family = {
  ...llama,
  hfTypes: ["mistral", "ministral"],
  config(hf) {
    const window = hf.sliding_window === null ? 0 : number(hf, "sliding_window", 4096);
    const layers = slides(hf, size(hf, "num_hidden_layers"), () => true);
    return baseConfig("mistral", hf, { maxPos: 131072, window: (n) => layers[n] ? window : 0 });
  },
};
