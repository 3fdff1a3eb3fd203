/**
 * Functions a model may call, for models whose chat template says nothing of them. Such a template would leave out the list of
 * functions and every call, and nobody would notice; so they are written into the messages as Qwen2.5's template writes them
 * (Qwen/Qwen2.5-7B-Instruct, chat_template), for training and for serving alike.
 * @module
 */
import { ExactNumber } from "../core/json.ts";
import type { Message, Tokenizer } from "./types.ts";

/** What a template can say. */
interface Abilities {
  /** The list of functions, and calls to them. */
  tools: boolean;
  /** A system message. */
  system: boolean;
}

const known = new WeakMap<Tokenizer, Abilities>();

const PROBE = "probe_of_functions";

/** Tries the template with a function and a call, and with a system message. */
function abilitiesOf(tokenizer: Tokenizer): Abilities {
  let found = known.get(tokenizer);
  if (!found) {
    const user = { role: "user", content: "?" };
    const tool = {
      type: "function",
      function: { name: PROBE, description: "", parameters: { type: "object", properties: {} } },
    };
    const call = { id: "probe0000", type: "function", function: { name: PROBE, arguments: {} } };
    const says = (messages: Message[], tools?: unknown[], addPrompt = true): boolean => {
      try {
        return tokenizer.chat(messages, { addPrompt, tools }).includes(PROBE);
      } catch {
        // A template that refuses the probe cannot say it.
        return false;
      }
    };
    found = {
      tools: says([user], [tool]) &&
        says([user, { role: "assistant", content: "", tool_calls: [call] }], undefined, false),
      system: says([{ role: "system", content: PROBE }, user]),
    };
    known.set(tokenizer, found);
  }
  return found;
}

/** Whether the model's own template writes functions and calls. */
export function knowsTools(tokenizer: Tokenizer): boolean {
  return abilitiesOf(tokenizer).tools;
}

/**
 * The messages and functions to give to `chat`: as they are where the template knows functions or there are none, else with
 * the functions in the system message and calls and their results as text.
 */
export function writeTools(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  tools: readonly unknown[] | undefined,
): { messages: readonly Message[]; tools?: readonly unknown[] } {
  const used = (tools?.length ?? 0) > 0 || messages.some((m) => m.tool_calls?.length || m.role === "tool");
  if (!used || knowsTools(tokenizer)) return { messages, tools };
  const plain = writeCalls(messages);
  if (!tools?.length) return { messages: plain };
  const listed = describeTools(tools), first = plain[0];
  if (first?.role === "system") plain[0] = { ...first, content: `${first.content}\n\n${listed}` };
  else if (abilitiesOf(tokenizer).system || first?.role !== "user") plain.unshift({ role: "system", content: listed });
  else plain[0] = { ...first, content: `${listed}\n\n${first.content}` };
  return { messages: plain };
}

function describeTools(tools: readonly unknown[]): string {
  return "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" +
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n" +
    tools.map(pythonJson).join("\n") + "\n</tools>\n\n" +
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n" +
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>';
}

/** Calls as text of the assistant's, results as text of the user's; results that follow each other are one message. */
function writeCalls(messages: readonly Message[]): Message[] {
  const out: Message[] = [];
  let results = false;
  for (const m of messages) {
    if (m.role === "tool") {
      const text = `<tool_response>\n${m.content}\n</tool_response>`, last = out[out.length - 1];
      if (results && last) last.content += `\n${text}`;
      else out.push({ role: "user", content: text });
      results = true;
      continue;
    }
    results = false;
    const calls = (m.tool_calls ?? []).map((c) => (c as { function: { name: string; arguments: unknown } }).function);
    const written = calls.map((f) => {
      const args = typeof f.arguments === "string" ? f.arguments : pythonJson(f.arguments);
      return `<tool_call>\n{"name": ${JSON.stringify(f.name)}, "arguments": ${args}}\n</tool_call>`;
    });
    const { tool_calls: _, ...rest } = m;
    out.push({ ...rest, content: [m.content ?? "", ...written].filter((t) => t !== "").join("\n") });
  }
  return out;
}

/** JSON with a space after each comma and colon, as Python's json.dumps and so every template's `tojson` writes it. */
export function pythonJson(value: unknown): string {
  if (value instanceof ExactNumber || typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const pairs = Object.entries(value).filter(([, v]) => v !== undefined);
    return `{${pairs.map(([k, v]) => `${JSON.stringify(k)}: ${pythonJson(v)}`).join(", ")}}`;
  }
  return JSON.stringify(value) ?? "null";
}
