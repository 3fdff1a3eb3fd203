/** Qwen 2 and 2.5: llama with a bias on q, k and v. @module */
import { baseConfig } from "./base.ts";
import type { Family, HfConfig } from "./config.ts";
import { configFromGguf, ggufBase, ggufRope, refuseBias, refuseWidth, refuseWindows } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { flag, number, slides } from "./settings.ts";

/** Qwen's window: only with use_sliding_window, and from layer max_window_layers on. */
export function qwenWindow(hf: HfConfig): (layer: number) => number {
  if (!flag(hf, "use_sliding_window", false) || hf.sliding_window === null) return () => 0;
  const window = number(hf, "sliding_window", 4096), first = number(hf, "max_window_layers", 28);
  const layers = slides(hf, number(hf, "num_hidden_layers"), (n) => n >= first);
  return (n) => layers[n] ? window : 0;
}

/** The family. */
export const qwen2: Family = {
  hfTypes: ["qwen2"],
  ggufArch: "qwen2",
  config(hf) {
    const bias = { qkv: true, o: false, mlp: false };
    return baseConfig("qwen2", hf, { maxPos: 32768, bias, window: qwenWindow(hf) });
  },
  fromGguf: (file) => configFromGguf(file, "qwen2", "qwen2"),
  tensors: tensorNames({}),
  ggufMeta(c, hf) {
    refuseWindows(c, "qwen2");
    refuseBias(c, "qwen2", { qkv: true });
    refuseWidth(c, "qwen2");
    return new Map([...ggufBase(c, "qwen2"), ...ggufRope(c, hf, "qwen2", { factors: false })]);
  },
  ggufExtra: () => [],
};
