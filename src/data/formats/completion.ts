/**
 * A prompt and what follows it; other common pairs of names are taken for the same. As TRL has it, both may be messages
 * (only the completion's answers are trained), and `label` may say whether the completion is wanted.
 * @module
 */
import type { Message } from "../../tokenizer/types.ts";
import type { Example } from "../types.ts";
import { type Format, listOf, textOf, toolsOf, withAnswer } from "./format.ts";
import { readTurn } from "./sharegpt.ts";

/** Pairs of columns, the usual first. */
const PAIRS: readonly (readonly [string, string])[] = [
  ["prompt", "completion"],
  ["prompt", "response"],
  ["prompt", "output"],
  ["question", "answer"],
  ["query", "response"],
  ["instruction", "response"],
  ["input", "output"],
  ["source", "target"],
];

type Columns = Readonly<Record<string, unknown>>;

export const completion: Format = {
  name: "completion",
  columns: ["prompt", "completion", "label"],
  detect: (keys) => PAIRS.some(([p, c]) => keys.has(p) && keys.has(c)),
  read(record) {
    const [prompt, answer] = PAIRS.find(([p, c]) => p in record && c in record) ?? PAIRS[0]!;
    const wanted = typeof record.label === "boolean" ? { wanted: record.label } : {};
    if (Array.isArray(record[prompt]) || Array.isArray(record[answer])) {
      return { ...asChat(record, prompt, answer), ...wanted };
    }
    return { kind: "completion", prompt: textOf(record, prompt), completion: textOf(record, answer), ...wanted };
  },
};

/** Messages of both; what the prompt has the assistant say is not trained. */
function asChat(record: Columns, prompt: string, answer: string): Example & { kind: "chat" } {
  const turns = (column: string, role: string): Message[] =>
    typeof record[column] === "string" ? [{ role, content: record[column] }] : listOf(record, column).map(readTurn);
  const asked = turns(prompt, "user").map((m) => m.role === "assistant" ? { ...m, weight: 0 } : m);
  const tools = toolsOf(record);
  return { kind: "chat", messages: [...asked, ...withAnswer(turns(answer, "assistant"))], ...(tools ? { tools } : {}) };
}
