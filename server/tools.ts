/**
 * Function calling: what a client offers, and calls found in an answer. Calls are read in the form that Hermes and Qwen
 * templates teach, and the tokenizer where a template teaches none: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
 * Calls in another model's own form stay text.
 * @module
 */
import { parseJson } from "../src/core/json.ts";
import { StopFilter } from "../src/infer/text.ts";
import { freshId } from "./answers.ts";
import { invalid } from "./errors.ts";
import { object, type Reader, show, text, wrong } from "./fields.ts";

const OPEN = "<tool_call>", CLOSE = "</tool_call>";

/** A call as OpenAI writes it; `arguments` is JSON in a string. */
export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** One function a client offers. */
export const tool: Reader<Record<string, unknown>> = (value, path) => {
  const given = object(value, path);
  if (given.type !== "function") throw wrong(`${path}.type`, '"function"', given.type);
  text(object(given.function, `${path}.function`).name, `${path}.function.name`);
  return given;
};

/** Whether the model may call: "auto" and "none" need nothing of the model; forcing a call does. */
export const toolChoice: Reader<"auto" | "none"> = (value, path) => {
  if (value === "auto" || value === "none") return value;
  throw invalid(path, `Cannot honour '${path}' ${show(value)}: "auto" and "none" are supported`);
};

/** Takes the calls out of a growing answer. */
export class ToolCallReader {
  #filter = new StopFilter([OPEN]);
  /** Text since OPEN; null outside a call. */
  #call: string | null = null;
  /** Calls found so far. */
  count = 0;

  /** Text outside of calls and calls that are complete, in what `text` adds. */
  push(added: string): { text: string; calls: ToolCall[] } {
    const out = { text: "", calls: [] as ToolCall[] };
    for (let rest = added; rest !== "";) {
      if (this.#call === null) {
        rest = this.#outside(rest, out);
        continue;
      }
      this.#call += rest;
      const end = this.#call.indexOf(CLOSE);
      if (end < 0) break;
      rest = this.#call.slice(end + CLOSE.length);
      this.#take(this.#call.slice(0, end), CLOSE, out);
      this.#call = null;
    }
    return out;
  }

  /** What is left at the end: a call whose end the model left out, or text. */
  flush(): { text: string; calls: ToolCall[] } {
    const out = { text: this.#filter.flush(), calls: [] as ToolCall[] };
    if (this.#call !== null) this.#take(this.#call, "", out);
    this.#call = null;
    return out;
  }

  #outside(added: string, out: { text: string }): string {
    const { text, stopped, after } = this.#filter.push(added);
    out.text += text;
    if (!stopped) return "";
    this.#filter = new StopFilter([OPEN]);
    this.#call = "";
    return after;
  }

  #take(json: string, close: string, out: { text: string; calls: ToolCall[] }): void {
    const call = parse(json);
    if (call) {
      this.count++;
      out.calls.push(call);
    } else out.text += OPEN + json + close;
  }
}

function parse(json: string): ToolCall | null {
  let value: unknown;
  try {
    value = parseJson(json);
  } catch {
    return null; // not a call: the client sees the text as it is
  }
  const { name, arguments: given } = (value ?? {}) as { name?: unknown; arguments?: unknown };
  if (typeof name !== "string") return null;
  const args = typeof given === "string" ? given : JSON.stringify(given ?? {});
  return { id: freshId("call"), type: "function", function: { name, arguments: args } };
}
