/** One text a record. @module */
import { type Format, textOf } from "./format.ts";

/** Names a text column has; the first that is there counts. */
const NAMES = ["text", "content", "body"] as const;

export const text: Format = {
  name: "text",
  columns: ["text"],
  detect: (keys) => NAMES.some((n) => keys.has(n)),
  read(record) {
    return { kind: "text", text: textOf(record, NAMES.find((n) => n in record) ?? "text") };
  },
};
