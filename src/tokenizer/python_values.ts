/** Values of a template as Python has them: how they are written, and when two are equal. @module */
import { Environment } from "@huggingface/jinja";
import { pythonFloat } from "../core/json.ts";

/** A value of the template library. */
export interface Value {
  readonly type: string;
  // deno-lint-ignore no-explicit-any
  readonly value: any;
}

type Make<T> = new (value: T) => Value;
const classOf = (sample: unknown): Make<unknown> => {
  const value = new Environment().set("sample", sample);
  return value.constructor as unknown as Make<unknown>;
};

/** The library's classes, which it does not export. */
export const Text: Make<string> = classOf("") as Make<string>;
export const Truth: Make<boolean> = classOf(true) as Make<boolean>;
export const Whole: Make<number> = classOf(1) as Make<number>;
export const Float: Make<number> = classOf(1.5) as Make<number>;
export const List: Make<readonly Value[]> = classOf([]) as Make<readonly Value[]>;
const Mapping = classOf({}) as Make<ReadonlyMap<string, Value>>;
export const Undefined: Make<undefined> = classOf(undefined) as Make<undefined>;

// In Python an undefined value has no attributes; the library gives another undefined value, and so nothing, silently.
Object.defineProperty(Undefined.prototype, "builtins", {
  get() {
    throw new Error("it reads a part of what is undefined");
  },
});

/** Lists that were written as tuples: they differ in how they are printed alone. */
const tuples = new WeakSet<Value>();

/** A tuple, as a list that the library can take apart. */
export function tuple(items: readonly Value[]): Value {
  const list = new List(items);
  tuples.add(list);
  return list;
}

/** A mapping whose keys need not be texts; the library knows texts alone, and asks for the others only as items. */
export function mapping(pairs: readonly (readonly Value[])[]): Value {
  const map = new Mapping(new Map(pairs.map(([key, value]) => [str(key!), value!])));
  return Object.assign(map, {
    items: () => new List(pairs.map(tuple)),
    keys: () => new List(pairs.map(([key]) => key!)),
  });
}

export const isText = (v: Value): boolean => v.type === "StringValue";
export const isList = (v: Value): boolean => v.type === "ArrayValue" || v.type === "TupleValue";
export const isMapping = (v: Value): boolean => v.type === "ObjectValue";
export const isUndefined = (v: Value): boolean => v.type === "UndefinedValue";
const isNumber = (v: Value) => v.type === "IntegerValue" || v.type === "FloatValue" || v.type === "BooleanValue";

/** Python's str(). */
export function str(v: Value): string {
  if (isText(v)) return v.value;
  return isUndefined(v) ? "" : repr(v);
}

/** Python's repr(). */
export function repr(v: Value): string {
  switch (v.type) {
    case "StringValue":
      return quoted(v.value);
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "BooleanValue":
      return v.value ? "True" : "False";
    case "FloatValue":
      return Number.isFinite(v.value) ? pythonFloat(v.value) : String(v.value).replace("Infinity", "inf").toLowerCase();
    case "ArrayValue":
    case "TupleValue": {
      const items = (v.value as Value[]).map(repr);
      if (!tuples.has(v) && v.type === "ArrayValue") return `[${items.join(", ")}]`;
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
    }
    case "ObjectValue":
    case "KeywordArgumentsValue": {
      const pairs = [...v.value as Map<string, Value>].map(([k, item]) => `${quoted(k)}: ${repr(item)}`);
      return `{${pairs.join(", ")}}`;
    }
    default:
      return String(v.value);
  }
}

/** A text in the quotes that need least escaping (CPython, Objects/unicodeobject.c, unicode_repr). */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const named: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [quote]: `\\${quote}` };
  // What Python holds to be unprintable: controls, separators but the space, lone surrogates, what is unassigned.
  const escaped = text.replace(/[\\'"]|(?! )[\p{C}\p{Z}]/gu, (c) => {
    if (c === "'" || c === '"') return named[c] ?? c;
    const code = c.codePointAt(0)!, hex = code.toString(16);
    const long = code > 0xffff ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
    return named[c] ?? (code < 0x100 ? `\\x${hex.padStart(2, "0")}` : long);
  });
  return quote + escaped + quote;
}

/** Python's == for what templates hold. */
export function equal(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return Number(a.value) === Number(b.value);
  if (isList(a) && isList(b)) {
    return a.value.length === b.value.length && a.value.every((x: Value, i: number) => equal(x, b.value[i]));
  }
  if (isMapping(a) && isMapping(b)) {
    return a.value.size === b.value.size &&
      [...a.value as Map<string, Value>].every(([k, x]) => b.value.has(k) && equal(x, b.value.get(k)));
  }
  return a.type === b.type && a.value === b.value;
}
