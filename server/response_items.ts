/** The items a client puts into /v1/responses, as chat messages and tools; their order is the conversation's. @module */
import type { Message } from "../src/tokenizer/types.ts";
import { invalid } from "./errors.ts";
import { list, object, type Reader, show, text, wrong } from "./fields.ts";
import { message } from "./messages.ts";

/** A text, or a list of messages, calls of functions and what they gave. */
export const input: Reader<Message[]> = (value, path) =>
  typeof value === "string"
    ? [{ role: "user", content: text(value, path) }]
    : joinCalls(list(item, { min: 1 })(value, path));

const item: Reader<Message> = (value, path) => {
  const given = object(value, path), { type = "message" } = given;
  if (type === "message") {
    const { type: _type, id: _id, status: _status, content, ...rest } = given;
    return message({ ...rest, content: Array.isArray(content) ? content.map(part) : content }, path);
  }
  if (type === "function_call") {
    const { call_id, name, arguments: args } = given;
    const call = { id: call_id, type: "function", function: { name, arguments: args } };
    return message({ role: "assistant", content: null, tool_calls: [call] }, path);
  }
  if (type === "function_call_output") {
    const id = text(given.call_id, `${path}.call_id`), output = given.output;
    const content = Array.isArray(output) ? output.map(part) : output;
    return message({ role: "tool", tool_call_id: id, content }, path);
  }
  throw invalid(`${path}.type`, `Cannot read an item of type ${show(type)}: messages and calls of functions are read`);
};

/** Parts of text under their three names. */
function part(value: unknown): unknown {
  const { type, text } = (value ?? {}) as { type?: unknown; text?: unknown };
  return type === "input_text" || type === "output_text" ? { type: "text", text } : value;
}

/** A text and the calls after it are one turn of the assistant's. */
function joinCalls(messages: readonly Message[]): Message[] {
  const out: Message[] = [];
  for (const m of messages) {
    const last = out.at(-1);
    if (m.tool_calls && last?.role === "assistant") {
      last.tool_calls = [...last.tool_calls ?? [], ...m.tool_calls];
    } else out.push({ ...m });
  }
  return out;
}

/** A function as /v1/responses has it, `{type, name, parameters}`, in the chat's shape. */
export const flatTool: Reader<Record<string, unknown>> = (value, path) => {
  const { type, strict: _strict, ...fn } = object(value, path);
  if (type !== "function") throw wrong(`${path}.type`, '"function"', type);
  text(fn.name, `${path}.name`);
  return { type, function: fn };
};
