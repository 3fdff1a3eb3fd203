/** A prompt and what follows it; other common pairs of names are taken for the same. @module */
import { type Format, textOf } from "./format.ts";

/** Pairs of columns, the usual first. */
const PAIRS: readonly (readonly [string, string])[] = [
  ["prompt", "completion"],
  ["prompt", "response"],
  ["prompt", "output"],
  ["question", "answer"],
  ["query", "response"],
  ["instruction", "response"],
  ["input", "output"],
  ["source", "target"],
];

export const completion: Format = {
  name: "completion",
  columns: ["prompt", "completion"],
  detect: (keys) => PAIRS.some(([p, c]) => keys.has(p) && keys.has(c)),
  read(record) {
    const [prompt, answer] = PAIRS.find(([p, c]) => p in record && c in record) ?? PAIRS[0]!;
    return { kind: "completion", prompt: textOf(record, prompt), completion: textOf(record, answer) };
  },
};
