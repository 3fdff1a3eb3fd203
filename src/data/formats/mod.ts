/** The formats, in the order they are tried: the more particular first. @module */
import type { FormatName } from "../types.ts";
import { alpaca } from "./alpaca.ts";
import { completion } from "./completion.ts";
import type { Format } from "./format.ts";
import { messages } from "./messages.ts";
import { preference } from "./preference.ts";
import { sharegpt } from "./sharegpt.ts";
import { text } from "./text.ts";

export type { Format } from "./format.ts";

/** All formats. */
export const FORMATS: readonly Format[] = [preference, messages, sharegpt, alpaca, completion, text];

/** The format of a name. */
export function formatNamed(name: FormatName): Format {
  return FORMATS.find((f) => f.name === name)!;
}
