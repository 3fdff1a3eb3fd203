/**
 * Instruction, optional input, output: the format of Stanford Alpaca; `system` and `history` as LLaMA-Factory adds them.
 * Databricks' Dolly calls the input `context` and the output `response`.
 * @module
 */
import { DataError } from "../../core/errors.ts";
import { type Format, inputOf, systemOf, textOf } from "./format.ts";

/** Names an output has; the first that is there counts. */
const OUTPUTS = ["output", "response", "answer", "completion"] as const;

export const alpaca: Format = {
  name: "alpaca",
  columns: ["instruction", "output", "input", "system", "history"],
  detect: (keys) => keys.has("instruction") && OUTPUTS.some((name) => keys.has(name)),
  read(record) {
    const system = systemOf(record);
    const history = historyOf(record.history);
    return {
      kind: "instruction",
      instruction: textOf(record, "instruction"),
      input: inputOf(record),
      output: textOf(record, OUTPUTS.find((name) => name in record) ?? "output"),
      ...(system === undefined ? {} : { system }),
      ...(history === undefined ? {} : { history }),
    };
  },
};

/** Earlier turns: pairs of what was asked and answered. */
function historyOf(value: unknown): [string, string][] | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const isPair = (p: unknown): p is [string, string] =>
    Array.isArray(p) && p.length === 2 && p.every((t) => typeof t === "string");
  if (!Array.isArray(value) || !value.every(isPair)) {
    throw new DataError("its 'history' should be a list of pairs of texts");
  }
  return value.length > 0 ? value : undefined;
}
