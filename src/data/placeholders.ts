/**
 * Placeholders such as `{{name}}`, which some published sets (LLaMA-Factory's identity.json) leave to their users: filled in when
 * values are given, and spoken of when they are not, since a model trained on them says them.
 * @module
 */

import { ExactNumber } from "../core/json.ts";

const PLACEHOLDER = /\{\{\s*(\w+)\s*\}\}/g;

/** A value with all texts in it changed. */
function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((v) => mapTexts(v, change));
  if (typeof value !== "object" || value === null || value instanceof ExactNumber) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, mapTexts(v, change)]));
}

/** The record with placeholders that have a value filled in. */
export function fillPlaceholders<T>(record: T, values: Readonly<Record<string, string>>): T {
  return mapTexts(record, (text) => text.replace(PLACEHOLDER, (all, name) => values[name] ?? all)) as T;
}

/** Names of the placeholders in a record. */
export function findPlaceholders(record: unknown): Set<string> {
  const names = new Set<string>();
  mapTexts(record, (text) => {
    if (text.includes("{{")) { for (const [, name] of text.matchAll(PLACEHOLDER)) names.add(name!); }
    return text;
  });
  return names;
}
