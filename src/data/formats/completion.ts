/**
 * A prompt and what follows it, joined as they stand; other usual pairs of names are a question and its answer, and so an
 * instruction. As TRL has it, both may be messages (only the completion's answers are trained), and `label` may say whether
 * the completion is wanted.
 * @module
 */
import { DataError } from "../../core/errors.ts";
import type { Message } from "../../tokenizer/types.ts";
import type { Example } from "../types.ts";
import { type Format, inputOf, listOf, systemOf, textOf, toolsOf, withAnswer, withSystem } from "./format.ts";
import { readTurns } from "./turns.ts";

/** Pairs of columns, the usual first. */
const PAIRS: readonly (readonly [string, string])[] = [
  ["prompt", "completion"],
  ["prompt", "response"],
  ["prompt", "output"],
  ["question", "answer"],
  ["question", "response"],
  ["query", "response"],
  ["input", "output"],
  ["source", "target"],
];

type Columns = Readonly<Record<string, unknown>>;

export const completion: Format = {
  name: "completion",
  columns: ["prompt", "completion", "label", "system", "tools"],
  detect: (keys) => PAIRS.some(([p, c]) => keys.has(p) && keys.has(c)),
  read(record) {
    const pair = PAIRS.find(([p, c]) => p in record && c in record) ?? PAIRS[0]!, [prompt, answer] = pair;
    const wanted = wantedOf(record.label);
    if (Array.isArray(record[prompt]) || Array.isArray(record[answer])) {
      return { ...asChat(record, prompt, answer), ...wanted };
    }
    const system = systemOf(record), asked = textOf(record, prompt), answered = textOf(record, answer);
    if (pair !== PAIRS[0]) {
      const input = prompt === "input" ? "" : inputOf(record);
      return {
        ...{ kind: "instruction", instruction: asked, input, output: answered },
        ...(system === undefined ? {} : { system }),
        ...wanted,
      };
    }
    if (system !== undefined) {
      throw new DataError(
        "it has a system prompt, but a prompt and its completion are joined as they stand; for a chat map the columns: " +
          "--columns instruction=prompt output=completion",
      );
    }
    return { kind: "completion", prompt: asked, completion: answered, ...wanted };
  },
};

/** What TRL's `label` says: true or false, in CSV files as a text, in others as 1 or 0; anything else is another column. */
function wantedOf(label: unknown): { wanted?: boolean } {
  if (/^(true|1)$/i.test(String(label))) return { wanted: true };
  return /^(false|0)$/i.test(String(label)) ? { wanted: false } : {};
}

/** Messages of both; what the prompt has the assistant say is not trained. */
function asChat(record: Columns, prompt: string, answer: string): Example & { kind: "chat" } {
  const turns = (column: string, role: string): Message[] =>
    typeof record[column] === "string" ? [{ role, content: record[column] }] : readTurns(listOf(record, column));
  const asked = withSystem(systemOf(record), turns(prompt, "user"))
    .map((m) => m.role === "assistant" ? { ...m, weight: 0 } : m);
  const tools = toolsOf(record);
  return { kind: "chat", messages: [...asked, ...withAnswer(turns(answer, "assistant"))], ...(tools ? { tools } : {}) };
}
