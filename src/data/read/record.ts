/** What every reader yields. @module */
import { parseJson } from "../../core/json.ts";

/** One record of a file, or why there is none at this place. */
export interface RawRecord {
  /** The file it stands in. */
  file: string;
  /** Line its first character stands on, from 1; of a Parquet file the row, from 1. */
  line: number;
  /** The record's columns. Absent when `bad` is set. */
  value?: Record<string, unknown>;
  /** Why it cannot be read. */
  bad?: string;
}

/** A record from a parsed JSON value. */
export function recordOf(value: unknown, file: string, line: number): RawRecord {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return { file, line, value: value as Record<string, unknown> };
  }
  const kind = value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`;
  return { file, line, bad: `the record is ${kind} and should be an object` };
}

/** A record from a JSON text. */
export function parseRecord(text: string, file: string, line: number): RawRecord {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (e) {
    return { file, line, bad: `it is not JSON (${(e as Error).message})` };
  }
  const record = recordOf(value, file, line), twice = record.value && repeatedKey(text, record.value);
  return twice === undefined ? record : { file, line, bad: `it has '${twice}' twice` };
}

/** A key that stands twice in the object, of which JSON.parse would silently take the last. */
function repeatedKey(text: string, value: Record<string, unknown>): string | undefined {
  const mayRepeat = Object.keys(value).some((key) => {
    const quoted = JSON.stringify(key), first = text.indexOf(quoted);
    return first >= 0 && text.indexOf(quoted, first + quoted.length) >= 0;
  });
  if (!mayRepeat) return;
  // A key is a string at depth 1 before a colon. The text has been parsed, so that strings and brackets are well-formed.
  const seen = new Set<string>();
  for (let i = 0, depth = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") depth--;
    else if (c === '"') {
      const from = i++;
      for (; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      if (depth !== 1 || !/^\s*:/.test(text.slice(i + 1, i + 80))) continue;
      const key = JSON.parse(text.slice(from, i + 1)) as string;
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
}
