/**
 * Chat messages as clients send them, made into what chat templates expect: text parts joined by newlines and tool
 * arguments parsed, as llama-server and vLLM do; `developer`, OpenAI's newer word, is `system`.
 * @module
 */
import { parseJson } from "../src/core/json.ts";
import type { Message } from "../src/tokenizer/types.ts";
import { invalid } from "./errors.ts";
import { object, type Reader, show, text, wrong } from "./fields.ts";

const ROLES = new Set(["system", "developer", "user", "assistant", "tool"]);
/** What clients send back of an answer and no template reads. */
const IGNORED = new Set(["refusal", "annotations"]);
const KNOWN = new Set(["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"]);

/** One message. */
export const message: Reader<Message> = (value, path) => {
  const given = object(value, path);
  for (const [key, v] of Object.entries(given)) {
    if (v === null || KNOWN.has(key) || IGNORED.has(key)) continue;
    throw invalid(`${path}.${key}`, `Cannot take the field '${path}.${key}': this server does not know it`);
  }
  const { role } = given;
  if (typeof role !== "string" || !ROLES.has(role)) {
    throw wrong(`${path}.role`, `one of ${[...ROLES].join(", ")}`, role);
  }
  const calls = given.tool_calls ?? null;
  if (calls !== null && role !== "assistant") {
    throw wrong(`${path}.tool_calls`, "absent but in assistant messages", calls);
  }
  const content = readContent(given.content ?? null, `${path}.content`);
  if (content === null && (role !== "assistant" || calls === null)) {
    throw invalid(`${path}.content`, `Cannot take '${path}.content': a ${role} message without tool calls needs text`);
  }
  const out: Message = { role: role === "developer" ? "system" : role, content };
  for (const key of ["name", "tool_call_id", "reasoning_content"]) {
    if (given[key] != null) out[key] = text(given[key], `${path}.${key}`);
  }
  if (calls !== null) out.tool_calls = readCalls(calls, `${path}.tool_calls`);
  return out;
};

function readContent(value: unknown, path: string): string | null {
  if (value === null) return null;
  if (!Array.isArray(value)) return text(value, path);
  const parts = value.map((part, i) => {
    const { type, text: words } = object(part, `${path}[${i}]`);
    if (type !== "text") {
      throw invalid(`${path}[${i}]`, `Cannot read a part of type ${show(type)}: this model reads text`);
    }
    return text(words, `${path}[${i}].text`);
  });
  return parts.join("\n");
}

/** Arguments come as a string of JSON; templates write them with `tojson`, so they are parsed here. */
function readCalls(value: unknown, path: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(path, "a list", value);
  return value.map((call, i) => {
    const given = object(call, `${path}[${i}]`), at = `${path}[${i}].function`;
    const { name, arguments: raw } = object(given.function, at);
    return { ...given, function: { name: text(name, `${at}.name`), arguments: readArguments(raw, `${at}.arguments`) } };
  });
}

function readArguments(value: unknown, path: string): unknown {
  if (typeof value !== "string") return object(value, path);
  if (value === "") return {};
  try {
    return object(parseJson(value), path);
  } catch {
    throw wrong(path, "a JSON object in a string", value);
  }
}
