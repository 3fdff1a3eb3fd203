/**
 * Reading a request's JSON: each known field has a reader; fields that cannot change the answer are ignored by a list;
 * any other field is refused by name, because leaving it out would answer another question than was asked.
 * @module
 */
import { invalid } from "./errors.ts";

/** Checks a value and gives it its type; `path` names it in the error. */
export type Reader<T> = (value: unknown, path: string) => T;

/** A known field. Absent and null both mean the default. */
export interface Field<T> {
  readonly read: Reader<T>;
  readonly fallback: T;
}

/** The fields of one endpoint. */
// deno-lint-ignore no-explicit-any
export type Fields = Readonly<Record<string, Field<any>>>;

/** What reading `F` gives. */
export type Values<F extends Fields> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Fields beside the known ones. */
export interface Others {
  /** Cannot change the answer, whatever they say. */
  readonly ignored: ReadonlySet<string>;
  /** Taken only with the value that means "as usual". */
  readonly usual: Readonly<Record<string, (value: unknown) => boolean>>;
}

/** A field that may be left out. */
export function optional<T>(read: Reader<T>, fallback: T): Field<T> {
  return { read, fallback };
}

/**
 * The known fields of a request.
 * @throws {ApiError} naming the field that is wrong or not known
 */
export function readFields<F extends Fields>(body: unknown, fields: F, others: Others): Values<F> {
  const given = object(body, "The request's body");
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    if (Object.hasOwn(fields, name) || value === null || others.ignored.has(name)) continue;
    const usual = Object.hasOwn(others.usual, name) ? others.usual[name] : null;
    if (usual?.(value)) continue;
    throw invalid(
      name,
      usual
        ? `Cannot honour '${name}': ${show(value)} is not supported here`
        : `Cannot take the field '${name}': this server does not know it`,
    );
  }
  for (const [name, { read, fallback }] of Object.entries(fields)) {
    const value = given[name] ?? null;
    out[name] = value === null ? fallback : read(value, name);
  }
  return out as Values<F>;
}

/** A finite number within bounds. */
export function number(o: { min?: number; max?: number; over?: number; integer?: boolean }): Reader<number> {
  const { min = -Infinity, max = Infinity, over = -Infinity, integer = false } = o;
  const kind = integer ? "an integer" : "a number";
  const bounds = [
    min > -Infinity && `at least ${min}`,
    over > -Infinity && `over ${over}`,
    max < Infinity && `at most ${max}`,
  ].filter((b) => b).join(" and ");
  return (value, path) => {
    const fits = typeof value === "number" && value >= min && value <= max && value > over;
    if (!fits || !(integer ? Number.isSafeInteger(value) : Number.isFinite(value))) {
      throw wrong(path, bounds ? `${kind}, ${bounds}` : kind, value);
    }
    return value;
  };
}

/** true or false. */
export const flag: Reader<boolean> = (value, path) => {
  if (typeof value !== "boolean") throw wrong(path, "true or false", value);
  return value;
};

/** A string of whole characters. */
export const text: Reader<string> = (value, path) => {
  if (typeof value !== "string") throw wrong(path, "a string", value);
  if (!value.isWellFormed()) throw wrong(path, "text without half surrogate pairs", value);
  return value;
};

/** Any JSON object. */
export const object: Reader<Record<string, unknown>> = (value, path) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(path, "an object", value);
  return value as Record<string, unknown>;
};

/** A list, each element read. */
export function list<T>(read: Reader<T>, o: { min?: number; max?: number } = {}): Reader<T[]> {
  const { min = 0, max = Infinity } = o;
  return (value, path) => {
    if (!Array.isArray(value)) throw wrong(path, "a list", value);
    if (value.length < min) throw invalid(path, `Cannot take '${path}': it needs at least ${min} element`);
    if (value.length > max) {
      throw invalid(path, `Cannot take '${path}': it has ${value.length} elements, ${max} at most`);
    }
    return value.map((v, i) => read(v, `${path}[${i}]`));
  };
}

/** A value for which a condition does not hold. */
export function wrong(path: string, wish: string, value: unknown): Error {
  return invalid(path, `Cannot take '${path}': it must be ${wish}, not ${show(value)}`);
}

/** A value as it stands in JSON, cut to a readable length. */
export function show(value: unknown): string {
  const json = JSON.stringify(value) ?? String(value);
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}
