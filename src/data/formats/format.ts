/** What a format is, and the checks that all share. @module */
import { DataError } from "../../core/errors.ts";
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
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  throw new DataError(`its '${column}' is ${kindOf(value)} and should be a text`);
}

/** A column that may be absent, null or empty. */
export function optionalText(record: Readonly<Record<string, unknown>>, column: string): string | undefined {
  const value = record[column];
  if (value === undefined || value === null || value === "") return undefined;
  return textOf(record, column);
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
    return JSON.parse(text);
  } catch (e) {
    throw new DataError(`its '${column}' is not JSON (${(e as Error).message})`);
  }
}

export function kindOf(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** The functions a record offers, in OpenAI's shape; given as a list or as JSON, with or without the wrapping. */
export function toolsOf(record: Readonly<Record<string, unknown>>): unknown[] | undefined {
  const value = typeof record.tools === "string" && record.tools.trim() !== ""
    ? parsed(record.tools, "tools")
    : record.tools;
  if (value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0)) {
    return undefined;
  }
  if (!Array.isArray(value)) throw new DataError(`its 'tools' is ${kindOf(value)} and should be a list of functions`);
  return value.map((tool) => {
    if (typeof tool !== "object" || tool === null) {
      throw new DataError(`a tool is ${kindOf(tool)} and should be an object`);
    }
    const wrapped = tool as { type?: string; function?: { name?: unknown }; name?: unknown };
    const named = wrapped.function ?? wrapped;
    if (typeof named.name !== "string") throw new DataError("a tool has no name");
    return wrapped.function ? { type: "function", ...wrapped } : { type: "function", function: tool };
  });
}

/** Calls in the shape chat templates expect: arguments as an object. `value`: `{ name, arguments }` or a list of them. */
export function callsOf(value: unknown): unknown[] {
  return (Array.isArray(value) ? value : [value]).map((call) => {
    const named = (call?.function ?? call) as { name?: unknown; arguments?: unknown } | null;
    if (typeof named !== "object" || named === null || typeof named.name !== "string") {
      throw new DataError("a function call has no name");
    }
    const args = typeof named.arguments === "string" && named.arguments.trim() !== ""
      ? parsed(named.arguments, "arguments")
      : named.arguments;
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
export function weightOf({ weight, train }: { weight?: unknown; train?: unknown }): { weight?: 0 } {
  if (weight !== undefined && weight !== null && weight !== 0 && weight !== 1) {
    throw new DataError(`a message's weight is ${JSON.stringify(weight)} and should be 0 or 1`);
  }
  return weight === 0 || train === false ? { weight: 0 } : {};
}
