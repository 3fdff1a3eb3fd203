/** Qwen 3 (dense): an RMS norm on each q and k head, head size of its own, no bias. @module */
import { baseConfig } from "./base.ts";
import type { Family } from "./config.ts";
import { configFromGguf, ggufBase, ggufRope, refuseBias, refuseWindows } from "./gguf_keys.ts";
import { tensorNames } from "./names.ts";
import { qwenWindow } from "./qwen2.ts";
import { flag } from "./settings.ts";

/** The family. */
export const qwen3: Family = {
  hfTypes: ["qwen3"],
  ggufArch: "qwen3",
  config(hf) {
    const attention = flag(hf, "attention_bias", false), bias = { qkv: attention, o: attention, mlp: false };
    return baseConfig("qwen3", hf, { maxPos: 32768, headDim: 128, qkNorm: true, bias, window: qwenWindow(hf) });
  },
  fromGguf: (file) => configFromGguf(file, "qwen3", "qwen3"),
  tensors: tensorNames({ qkNorms: true }),
  ggufMeta(c, hf) {
    refuseWindows(c, "qwen3");
    refuseBias(c, "qwen3");
    return new Map([...ggufBase(c, "qwen3"), ...ggufRope(c, hf, "qwen3", { factors: false })]);
  },
  ggufExtra: () => [],
};
