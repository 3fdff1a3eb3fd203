/**
 * What one setting is, as data. The table itself is config.ts; flags, help, defaults, the config file and docs/flags.md
 * are all read from it, so that they cannot disagree.
 * @module
 */
import { ConfigError } from "../core/errors.ts";

/** The verbs of the command line. */
export type Command = "train" | "chat" | "export" | "serve" | "inspect" | "doctor";

/** `flag` is yes or no; `list` takes one or more values, by spaces or commas. */
export type Kind = "text" | "int" | "number" | "flag" | "list";

/** A value as it stands in a config file. */
export type Setting = string | number | boolean | readonly string[] | null;

/** One setting. A default of null means "chosen at run time"; the help says how. */
export interface Option {
  readonly kind: Kind;
  readonly default: Setting;
  readonly help: string;
  /** Commands that take it; train alone when absent. */
  readonly on?: readonly Command[];
  /** The only values allowed, compared without case. */
  readonly choices?: readonly string[];
  /** Values with characters that no name has are regular expressions, and not held against the choices. */
  readonly patterns?: true;
  /** Least and greatest value of a number. */
  readonly range?: readonly [number, number];
  /** Other names for the same setting. */
  readonly also?: readonly string[];
  /** Whether unsloth-cli.py has it, under the same name. */
  readonly unsloth?: true;
  /** Never printed and never saved. */
  readonly secret?: true;
}

/** The type of an option's value, from its kind, choices and default. */
export type ValueOf<O extends Option> =
  | (O["kind"] extends "flag" ? boolean
    : O["kind"] extends "list" ? readonly string[]
    : O["kind"] extends "int" | "number" ? number
    : O extends { choices: readonly (infer C)[] } ? C
    : string)
  | (O["default"] extends null ? null : never);

/** The setting's value from text, as it stands on a command line. */
export function parseSetting(name: string, o: Option, text: string): Setting {
  if (o.default === null && /^(none|null|auto)$/i.test(text)) return null;
  if (o.kind === "list") return checkSetting(name, o, text.split(",").map((s) => s.trim()).filter((s) => s !== ""));
  return checkSetting(name, o, o.kind === "text" ? text : fromText(o.kind, text) ?? text);
}

function fromText(kind: Kind, text: string): number | boolean | null {
  if (kind === "flag") {
    return /^(true|yes|on|1)$/i.test(text) ? true : /^(false|no|off|0)$/i.test(text) ? false : null;
  }
  // Number("") is 0 and Number("0x10") is 16: neither is meant on a command line.
  return /^[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text.replaceAll("_", "")) : null;
}

/**
 * The value itself, if it is of the option's kind and within its range and choices.
 * @throws {ConfigError} naming the option and what it takes
 */
export function checkSetting(name: string, o: Option, value: unknown): Setting {
  const said = typeof value === "number" ? String(value) : JSON.stringify(value);
  const wrong = (wish: string) => new ConfigError(`Cannot set ${name} to ${said}: it takes ${wish}`);
  if (value === null || value === undefined) {
    if (o.default === null) return null;
    throw wrong(article(o.kind));
  }
  switch (o.kind) {
    case "flag":
      if (typeof value !== "boolean") throw wrong("true or false");
      return value;
    case "list": {
      const items = Array.isArray(value) ? value : [value];
      if (items.length === 0 && (o.default as readonly string[]).length > 0) throw wrong("one value or more");
      return items.map((v) => choice(name, o, String(v)));
    }
    case "int":
    case "number": {
      if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(article(o.kind));
      if (o.kind === "int" && !Number.isInteger(value)) throw wrong("a whole number");
      const [low, high] = o.range ?? [-Infinity, Infinity];
      if (value < low || value > high) throw wrong(bounds(low, high));
      return value;
    }
    case "text":
      if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") throw wrong("text");
      return choice(name, o, String(value));
  }
}

function choice(name: string, o: Option, value: string): string {
  if (!o.choices || value === "" || (o.patterns && /[^\w-]/.test(value))) return value;
  const found = o.choices.find((c) => c.toLowerCase() === value.toLowerCase());
  if (found === undefined) {
    throw new ConfigError(`Cannot set ${name} to ${JSON.stringify(value)}: it takes ${o.choices.join(", ")}`);
  }
  return found;
}

function article(kind: Kind): string {
  return { flag: "true or false", int: "a whole number", number: "a number", text: "text", list: "a list" }[kind];
}

function bounds(low: number, high: number): string {
  if (high === Infinity) return `${low} or more`;
  return low === -Infinity ? `${high} or less` : `${low} to ${high}`;
}
