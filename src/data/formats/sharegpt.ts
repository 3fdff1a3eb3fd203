/** Turns under "conversations", as ShareGPT and LLaMA-Factory have them; optional `system` and `tools`. @module */
import { type Format, listOf, systemOf, toolsOf, withAnswer, withSystem } from "./format.ts";
import { readTurns } from "./turns.ts";

export const sharegpt: Format = {
  name: "sharegpt",
  columns: ["conversations", "system", "tools"],
  detect: (keys) => keys.has("conversations") || keys.has("conversation"),
  read(record) {
    const tools = toolsOf(record), column = "conversations" in record ? "conversations" : "conversation";
    const turns = withSystem(systemOf(record), readTurns(listOf(record, column)));
    return { kind: "chat", messages: withAnswer(turns), ...(tools ? { tools } : {}) };
  },
};
