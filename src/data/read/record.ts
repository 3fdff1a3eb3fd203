/** What every reader yields. @module */

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
    value = JSON.parse(text);
  } catch (e) {
    return { file, line, bad: `it is not JSON (${(e as Error).message})` };
  }
  return recordOf(value, file, line);
}
