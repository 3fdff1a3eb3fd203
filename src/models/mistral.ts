/** Mistral 7B and its kin: llama with a sliding window in every layer; a GGUF of it is one of arch llama. @module */
import { baseConfig } from "./base.ts";
import type { Family } from "./config.ts";
import { llama } from "./llama.ts";
import { number } from "./settings.ts";

/** Its GGUF side is llama's, which refuses the window unless it covers the whole context. */
export const mistral: Family = {
  ...llama,
  hfTypes: ["mistral"],
  config(hf) {
    const window = hf.sliding_window === null ? 0 : number(hf, "sliding_window", 4096);
    return baseConfig("mistral", hf, { maxPos: 131072, window: () => window });
  },
};
