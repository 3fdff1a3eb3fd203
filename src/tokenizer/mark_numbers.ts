/**
 * Exact numbers through a template library that knows only JavaScript's: each goes in as a whole number that stands nowhere else,
 * and what the template made of that is exchanged for the number's own text.
 * @module
 */
import { ExactNumber } from "../core/json.ts";

/** First digits of marks: of e, pi, the golden ratio. All marks have 16 digits and are safe integers. */
const STEMS = ["27182818284", "31415926535", "16180339887"];

/** Values with marks in them, and how to put the numbers back into a text made of them. */
interface Marked {
  value: Record<string, unknown>;
  restore(text: string): string;
}

/** Variables for the library. Functions among them stay as they are. */
export function markNumbers(variables: Record<string, unknown>): Marked {
  if (!hasExact(variables)) return { value: variables, restore: (text) => text };
  const written = JSON.stringify(variables, (_, v) => typeof v === "bigint" ? String(v) : v);
  const stem = STEMS.find((s) => !written.includes(s));
  if (stem === undefined) throw new RangeError("its numbers cannot be told from those that stand for them");
  const kept: string[] = [];
  const mark = (value: unknown): unknown => {
    if (isExact(value)) return Number(stem + String(kept.push(String(value))).padStart(5, "0"));
    if (Array.isArray(value)) return value.map(mark);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, mark(v)]));
  };
  const value = mark(variables) as Record<string, unknown>;
  if (kept.length > 99_999) throw new RangeError("its numbers are too many to be kept as they are");
  const restore = (text: string) => text.replace(new RegExp(`${stem}(\\d{5})`, "g"), (_, n) => kept[Number(n) - 1]!);
  return { value, restore };
}

/** A number JavaScript would write otherwise, or cannot write: records in memory may hold bigints. */
function isExact(value: unknown): value is ExactNumber | bigint {
  return value instanceof ExactNumber || typeof value === "bigint";
}

function hasExact(value: unknown): boolean {
  return isExact(value) || (typeof value === "object" && value !== null && Object.values(value).some(hasExact));
}
