/** A list of `{ from, value }` under "conversations", as ShareGPT and LLaMA-Factory have it; optional `system` and `tools`. @module */
import { DataError } from "../../core/errors.ts";
import type { Message } from "../../tokenizer/types.ts";
import {
  callsOf,
  type Format,
  kindOf,
  listOf,
  optionalText,
  parsed,
  toolsOf,
  weightOf,
  withAnswer,
  withSystem,
} from "./format.ts";
import { readMessage } from "./messages.ts";

/** Who speaks, in words of a chat template. */
const ROLES: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  chatgpt: "assistant",
  model: "assistant",
  bot: "assistant",
  system: "system",
  function_call: "call",
  observation: "tool",
  function_response: "tool",
  tool: "tool",
};

export const sharegpt: Format = {
  name: "sharegpt",
  columns: ["conversations", "system", "tools"],
  detect: (keys) => keys.has("conversations"),
  read(record) {
    const system = optionalText(record, "system");
    const tools = toolsOf(record);
    const turns = withSystem(system, listOf(record, "conversations").map(readTurn));
    return { kind: "chat", messages: withAnswer(turns), ...(tools ? { tools } : {}) };
  },
};

/** One turn; `{ role, content }` is taken too, since some sets have it under this name. */
export function readTurn(turn: unknown): Message {
  if (typeof turn !== "object" || turn === null) {
    throw new DataError(`a turn is ${kindOf(turn)} and should be an object`);
  }
  const { from, value } = turn as Record<string, unknown>;
  if (from === undefined && "role" in turn) return readMessage(turn);
  const role = typeof from === "string" ? ROLES[from] : undefined;
  if (!role) throw new DataError(`a turn is from '${from}' and should be from one of ${Object.keys(ROLES).join(", ")}`);
  if (typeof value !== "string") throw new DataError(`a turn's value is ${kindOf(value)} and should be a text`);
  const weight = weightOf(turn);
  if (role !== "call") return { role, content: value, ...weight };
  return { role: "assistant", content: "", tool_calls: callsOf(parsed(value, "function_call")), ...weight };
}
