/** Turns under "messages", as OpenAI's chat and transformers have them; optional `system` and `tools`. @module */
import { type Format, listOf, systemOf, toolsOf, withAnswer, withSystem } from "./format.ts";
import { readTurns } from "./turns.ts";

export const messages: Format = {
  name: "messages",
  columns: ["messages", "tools", "system"],
  detect: (keys) => keys.has("messages"),
  read(record) {
    const tools = toolsOf(record);
    const turns = withSystem(systemOf(record), readTurns(listOf(record, "messages")));
    return { kind: "chat", messages: withAnswer(turns), ...(tools ? { tools } : {}) };
  },
};
