/** What a format is, and the checks that all share. @module */
import { DataError } from "../../core/errors.ts";
import { ExactNumber, parseJson } from "../../core/json.ts";
import type { Message } from "../../tokenizer/types.ts";
import type { Example, FormatName } from "../types.ts";

/** A kind of dataset: which columns it has, and how a record becomes an example. */
export interface Format {
  readonly name: FormatName;
  /** Columns it reads, those it must have first; for messages and for the mapping of columns. */
  readonly columns: readonly string[];
  /** Whether records that all have these keys are of this format. */
  detect(keys: ReadonlySet<string>): boolean;
  /** @throws {DataError} naming the column that is not as it should be */
  read(record: Readonly<Record<string, unknown>>): Example;
}

/** A column that must be a text. */
export function textOf(record: Readonly<Record<string, unknown>>, column: string): string {
  const value = record[column];
  if (typeof value === "string") return value;
  if (["number", "boolean", "bigint"].includes(typeof value) || value instanceof ExactNumber) return String(value);
  throw new DataError(`its '${column}' is ${kindOf(value)} and should be a text`);
}

/** A column that may be absent, null or empty. */
export function optionalText(record: Readonly<Record<string, unknown>>, column: string): string | undefined {
  const value = record[column];
  if (value === undefined || value === null || value === "") return undefined;
  return textOf(record, column);
}

/** The system prompt a record has in a column of its own. */
export function systemOf(record: Readonly<Record<string, unknown>>): string | undefined {
  return optionalText(record, "system") ?? optionalText(record, "system_prompt");
}

/** What an instruction or a question is about, where that stands in a column of its own; else "". */
export function inputOf(record: Readonly<Record<string, unknown>>): string {
  return optionalText(record, "input") ?? optionalText(record, "context") ?? "";
}

/** A column that must be a list, as such or as JSON (as CSV files have it). */
export function listOf(record: Readonly<Record<string, unknown>>, column: string): unknown[] {
  const value = typeof record[column] === "string" ? parsed(record[column], column) : record[column];
  if (Array.isArray(value) && value.length > 0) return value;
  throw new DataError(
    `its '${column}' is ${Array.isArray(value) ? "empty" : kindOf(value)} and should be a list of messages`,
  );
}

/** The value of a JSON text. */
export function parsed(text: string, column: string): unknown {
  try {
    return parseJson(text);
  } catch (e) {
    throw new DataError(`its '${column}' is not JSON (${(e as Error).message})`);
  }
}

export function kindOf(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (value instanceof ExactNumber) return "a number";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/**
 * The functions a record offers, in OpenAI's shape: given under `tools` or OpenAI's older `functions`, as a list or as JSON,
 * with or without the wrapping, with Anthropic's `input_schema` for the parameters.
 */
export function toolsOf(record: Readonly<Record<string, unknown>>): unknown[] | undefined {
  const column = isEmpty(record.tools) && !isEmpty(record.functions) ? "functions" : "tools";
  const value = jsonIn(record[column], column);
  if (isEmpty(value)) return undefined;
  if (!Array.isArray(value)) {
    throw new DataError(`its '${column}' is ${kindOf(value)} and should be a list of functions`);
  }
  return value.map((item) => {
    const tool = jsonIn(item, "tools");
    if (typeof tool !== "object" || tool === null) {
      throw new DataError(`a tool is ${kindOf(tool)} and should be an object`);
    }
    const wrapped = tool as { type?: unknown; function?: { name?: unknown }; name?: unknown; input_schema?: unknown };
    const { type, function: inner, ...flat } = wrapped;
    if (typeof (inner ?? wrapped).name !== "string") throw new DataError("a tool has no name");
    if (inner) return { type: "function", ...wrapped };
    const { input_schema: parameters, ...rest } = flat;
    return {
      type: "function",
      function: parameters === undefined ? (type === "function" ? flat : tool) : { ...rest, parameters },
    };
  });
}

/** A value, parsed where it is JSON in a text. */
function jsonIn(value: unknown, column: string): unknown {
  return typeof value === "string" && value.trim() !== "" ? parsed(value, column) : value;
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0);
}

/** Names that a call's arguments have: OpenAI's, Llama 3's, Anthropic's. */
const ARGUMENTS = ["arguments", "parameters", "input"] as const;

/** What else stands in a call and says nothing of its arguments. */
const BESIDE: ReadonlySet<string> = new Set(["name", "id", "type", "index", "function", "call_id", "description"]);

/**
 * Calls in the shape chat templates expect: arguments as an object. `value`: `{ name, arguments }` or a list of them.
 * @throws {DataError} for a call without a name, or with arguments under a name that is not known
 */
export function callsOf(value: unknown): unknown[] {
  return (Array.isArray(value) ? value : [value]).map((call) => {
    const named = (call?.function ?? call) as Record<string, unknown> | null;
    if (typeof named !== "object" || named === null || typeof named.name !== "string") {
      throw new DataError("a function call has no name");
    }
    const key = ARGUMENTS.find((k) => named[k] !== undefined && named[k] !== null);
    const odd = key ?? Object.keys(named).find((k) => !BESIDE.has(k) && !isEmpty(named[k]));
    if (odd !== key) {
      throw new DataError(`a call of '${named.name}' has '${odd}' and no arguments; they stand under 'arguments'`);
    }
    const given = key === undefined ? undefined : named[key];
    const args = typeof given === "string" && given.trim() !== "" ? parsed(given, "arguments") : given;
    const id = typeof call.id === "string" ? { id: call.id } : {};
    return { ...id, type: "function", function: { name: named.name, arguments: args || {} } };
  });
}

/** Refuses conversations nothing can be learnt from. */
export function withAnswer(messages: Message[]): Message[] {
  if (messages.some((m) => m.role === "assistant")) return messages;
  const roles = [...new Set(messages.map((m) => m.role))].join(", ");
  throw new DataError(`no message has the role 'assistant': its roles are ${roles}`);
}

/** The turns after a record's own system prompt. @throws {DataError} when the turns have another one */
export function withSystem(system: string | undefined, turns: Message[]): Message[] {
  const own = turns[0]?.role === "system" ? turns[0].content : undefined;
  if (system === undefined || own === system) return turns;
  if (own !== undefined) {
    throw new DataError("its 'system' says one thing and its first turn, from the system, another");
  }
  return [{ role: "system", content: system }, ...turns];
}

/**
 * Whether a turn is trained, as OpenAI's files say it (`weight` 0 or 1) and as axolotl's do (`train`); nothing: it is.
 * @throws {DataError} for a share of a weight, which nobody here can honour
 */
export function weightOf({ weight: given, train }: { weight?: unknown; train?: unknown }): { weight?: 0 } {
  const weight = given instanceof ExactNumber ? Number(given) : given;
  if (weight !== undefined && weight !== null && weight !== 0 && weight !== 1) {
    throw new DataError(`a message's weight is ${JSON.stringify(weight)} and should be 0 or 1`);
  }
  return weight === 0 || train === false ? { weight: 0 } : {};
}
