/**
 * Turns of a chat in every shape they are published in: `{ role, content }` of OpenAI and transformers, `{ from, value }` of
 * ShareGPT, calls as `tool_calls`, as OpenAI's older `function_call`, as turns of their own (LLaMA-Factory's function_call,
 * ms-swift's tool_call) and as Anthropic's parts. All become messages as chat templates know them.
 * @module
 */
import { DataError } from "../../core/errors.ts";
import { type Message, pythonJson } from "../../tokenizer/mod.ts";
import { callsOf, kindOf, parsed, weightOf } from "./format.ts";

/** Who speaks, in words of a chat template; `call`: the assistant, in a turn that is nothing but calls. */
const ROLES: ReadonlyMap<string, string> = new Map([
  ...["human", "user"].map((name) => [name, "user"] as const),
  ...["gpt", "assistant", "chatgpt", "model", "bot"].map((name) => [name, "assistant"] as const),
  ...["function_call", "tool_call"].map((name) => [name, "call"] as const),
  ...["observation", "function_response", "tool_response", "function", "tool"].map((name) => [name, "tool"] as const),
  ["system", "system"],
]);

/** The role a name stands for, whatever its case; undefined for a name that no published set has. */
function roleOf(name: unknown): string | undefined {
  return typeof name === "string" ? ROLES.get(name.toLowerCase().replaceAll("-", "_")) : undefined;
}

/**
 * The messages of a list of turns, of either shape. Turns that are nothing but calls and follow each other are one message,
 * since they were made at once.
 * @throws {DataError} for a turn that is not as it should be
 */
export function readTurns(list: readonly unknown[]): Message[] {
  const out: Message[] = [];
  let calling = false;
  for (const turn of list) {
    const { messages, calls } = readTurn(turn), last = out.at(-1);
    if (calls && calling && last?.weight === messages[0]!.weight) {
      out[out.length - 1] = { ...last!, tool_calls: [...last!.tool_calls!, ...messages[0]!.tool_calls!] };
    } else out.push(...messages);
    calling = calls;
  }
  return out;
}

/** What one turn comes to; `calls`: it is of a role that only calls. */
interface Turn {
  messages: Message[];
  calls: boolean;
}

function readTurn(turn: unknown): Turn {
  if (typeof turn !== "object" || turn === null || Array.isArray(turn)) {
    throw new DataError(`a message is ${kindOf(turn)} and should be an object`);
  }
  const m = turn as Record<string, unknown>, shareGpt = m.role === undefined && m.from !== undefined;
  const name = shareGpt ? m.from : m.role, role = roleOf(name);
  if (shareGpt && !role) {
    throw new DataError(`a turn is from '${name}' and should be from one of ${[...ROLES.keys()].join(", ")}`);
  }
  if (typeof name !== "string") throw new DataError("a message has no role");
  if (shareGpt && typeof m.value !== "string") {
    throw new DataError(`a turn's value is ${kindOf(m.value)} and should be a text`);
  }
  const weight = weightOf(m);
  if (role === "call") {
    const value = shareGpt ? m.value : m.content;
    const tool_calls = callsOf(typeof value === "string" ? parsed(value, name) : value);
    return { messages: [{ role: "assistant", content: "", tool_calls, ...weight }], calls: true };
  }
  if (shareGpt) return { messages: [{ role: role!, content: m.value as string, ...weight }], calls: false };
  return { messages: readMessage(m, role ?? name), calls: false };
}

/** One message; results of functions among its parts are messages of their own, which come first. */
function readMessage(m: Readonly<Record<string, unknown>>, role: string): Message[] {
  const { content, tool_calls, function_call, weight: _, train: __, ...rest } = m;
  // Sets whose messages share columns have null where a message lacks one.
  const more = Object.fromEntries(Object.entries(rest).filter(([, v]) => v !== null && v !== undefined));
  const parts = Array.isArray(content) ? content : [], kind = (part: unknown) => (part as { type?: unknown })?.type;
  const used = parts.filter((p) => kind(p) === "tool_use").map((p) => ({ ...p, type: "function" }));
  const results = parts.filter((p) => kind(p) === "tool_result").map((p): Message => ({
    role: "tool",
    content: contentOf(p.content ?? "", "tool"),
    ...(typeof p.tool_use_id === "string" ? { tool_call_id: p.tool_use_id } : {}),
  }));
  const named = [tool_calls, function_call].map((value) => callsIn(value)).find((list) => list.length) ?? used;
  const calls = named.length ? callsOf(named) : undefined;
  const left = used.length + results.length
    ? parts.filter((p) => kind(p) !== "tool_use" && kind(p) !== "tool_result")
    : content;
  const text = (left === null || left === undefined) && calls ? "" : contentOf(left, role);
  if (results.length && text === "" && !calls) return results;
  return [...results, { ...more, ...weightOf(m), role, content: text, ...(calls ? { tool_calls: calls } : {}) }];
}

/** The calls of a message as a list, from a list, a single one, or either as JSON. */
function callsIn(value: unknown): unknown[] {
  if (typeof value === "string") return value.trim() === "" ? [] : callsIn(parsed(value, "tool_calls"));
  if (value === null || value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}

/** The text of a content. Texts in parts are joined; what a function gave back may be any JSON. */
function contentOf(content: unknown, role: string): string {
  if (typeof content === "string") return content;
  if (Array.isArray(content)) {
    const texts = content.map(textOfPart), odd = texts.indexOf(undefined);
    if (odd < 0) return texts.join("");
    if (role !== "tool") {
      const part = content[odd] as { type?: unknown } | null;
      throw new DataError(`a message has a part of type '${part?.type}', and only texts can be trained on`);
    }
  }
  if (role === "tool" && content !== null && content !== undefined) return pythonJson(content);
  throw new DataError(`a message's content is ${kindOf(content)} and should be a text`);
}

function textOfPart(part: unknown): string | undefined {
  if (typeof part === "string") return part;
  const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
  const named = type === "text" || type === "input_text" || type === "output_text";
  return named && typeof text === "string" ? text : undefined;
}
