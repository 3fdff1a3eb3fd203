/** A list of `{ role, content }`, as OpenAI's chat and transformers have it; optional `tools`. @module */
import { DataError } from "../../core/errors.ts";
import type { Message } from "../../tokenizer/types.ts";
import { callsOf, type Format, kindOf, listOf, toolsOf, weightOf, withAnswer } from "./format.ts";

export const messages: Format = {
  name: "messages",
  columns: ["messages", "tools"],
  detect: (keys) => keys.has("messages"),
  read(record) {
    const tools = toolsOf(record);
    const list = withAnswer(listOf(record, "messages").map(readMessage));
    return { kind: "chat", messages: list, ...(tools ? { tools } : {}) };
  },
};

/** One message; a content in parts is joined, since parts that are no text cannot be trained on. */
export function readMessage(value: unknown): Message {
  if (typeof value !== "object" || value === null) {
    throw new DataError(`a message is ${kindOf(value)} and should be an object`);
  }
  const m = value as Record<string, unknown>;
  if (typeof m.role !== "string") throw new DataError("a message has no role");
  const calls = Array.isArray(m.tool_calls) && m.tool_calls.length > 0 ? callsOf(m.tool_calls) : undefined;
  const { tool_calls: _, weight: __, train: ___, ...rest } = m;
  return {
    ...rest,
    ...weightOf(m),
    role: m.role,
    content: contentOf(m.content, calls !== undefined),
    ...(calls ? { tool_calls: calls } : {}),
  };
}

function contentOf(content: unknown, optional: boolean): string {
  if (typeof content === "string") return content;
  if ((content === null || content === undefined) && optional) return "";
  if (Array.isArray(content)) {
    return content.map((part) => {
      if (part?.type === "text" && typeof part.text === "string") return part.text;
      throw new DataError(`a message has a part of type '${part?.type}', and only texts can be trained on`);
    }).join("");
  }
  throw new DataError(`a message's content is ${kindOf(content)} and should be a text`);
}
