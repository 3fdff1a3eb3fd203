/** What is shown before the first step: counts, and an example as the model will see it. @module */
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Counts, Row } from "./types.ts";

/** How an example is shown. */
export interface ShowOptions {
  /** Trained tokens in colour (ANSI) instead of brackets. Default false. */
  color?: boolean;
  /** Tokens shown at most; the middle is left out. Default 400. */
  limit?: number;
}

const number = (n: number): string => n.toString().replace(/\B(?=(\d{3})+$)/g, ",");

/** The counts as lines to print; what is zero and would be bad news is left out. */
export function describeCounts(c: Counts): string[] {
  const share = c.tokens > 0 ? ` (${(100 * c.trainedTokens / c.tokens).toFixed(1)}%)` : "";
  const lines = [
    `Rows ${number(c.rows)} from ${number(c.records)} records; tokens ${number(c.tokens)}, trained ${
      number(c.trainedTokens)
    }${share}`,
  ];
  if (c.truncatedRows) {
    lines.push(
      `Cut at the right: ${number(c.truncatedRows)} rows, ${
        number(c.truncatedTokens)
      } tokens lost; the longest row has ${number(c.longest)}`,
    );
  }
  if (c.dropped) lines.push(`Dropped: ${number(c.dropped)} rows without a trained token`);
  if (c.badRows) lines.push(`Broken records left out: ${number(c.badRows)}`);
  return lines;
}

/**
 * A row as the model sees it: every token by itself, trained ones in [brackets] or in colour. Tokens that are a character only
 * together stand together; bytes that are none show as they stand in the vocabulary, line ends as ⏎ and a line end.
 */
export function showExample(row: Row, tokenizer: Tokenizer, o: ShowOptions = {}): string {
  const { color = false, limit = 400 } = o, n = row.ids.length;
  let text = "", lit = false;
  const units = (from: number, to: number): string => {
    let out = "";
    for (let i = from, next: number; i < to; i = next) {
      next = unitEnd(row, i, to, tokenizer);
      out += unit(i, next);
    }
    return out;
  };
  const unit = (i: number, end: number): string => {
    const trained = row.weights[i] === 1;
    const piece = end > i + 1 ? tokenizer.decode(row.ids.subarray(i, end)) : visible(tokenizer, row.ids[i]!);
    if (!color) return trained ? `[${piece}]` : piece;
    const change = trained === lit ? "" : trained ? "\x1b[32m" : "\x1b[0m";
    lit = trained;
    return change + piece;
  };
  let shown = 0;
  const skip = (to: number) => {
    if (to > shown) text += `${lit ? "\x1b[0m" : ""} … ${number(to - shown)} tokens … ${lit ? "\x1b[32m" : ""}`;
  };
  for (const [from, to] of partsShown(row, limit)) {
    skip(from);
    text += units(from, to);
    shown = to;
  }
  skip(n);
  return text + (lit ? "\x1b[0m" : "");
}

/** The parts of a long row that are shown: both ends, or the beginning and what is trained first where neither end is. */
function partsShown({ ids, weights }: Row, limit: number): [number, number][] {
  const n = ids.length, half = Math.floor(limit / 2);
  if (n <= limit) return [[0, n]];
  const head = limit - half, first = weights.indexOf(1), isTrained = (from: number) => weights.indexOf(1, from) >= 0;
  if (first < head || first < 0 || isTrained(n - half)) return [[0, head], [n - half, n]];
  const from = Math.max(head, first - Math.floor(half / 4));
  return [[0, head], [from, Math.min(n, from + half)]];
}

/** Most tokens that one character is looked for in: four bytes, and a letter's parts before and after them. */
const JOINED = 6;

/** Where the unit that begins at `i` ends: a token, or the tokens that make characters only together, as an emoji's do. */
function unitEnd({ ids, weights }: Row, i: number, to: number, tokenizer: Tokenizer): number {
  if (!tokenizer.decode([ids[i]!]).includes("\ufffd")) return i + 1;
  for (let end = i + 2; end <= Math.min(to, i + JOINED) && weights[end - 1] === weights[i]; end++) {
    if (!tokenizer.decode(ids.subarray(i, end)).includes("\ufffd")) return end;
  }
  return i + 1;
}

function visible(tokenizer: Tokenizer, id: number): string {
  const piece = tokenizer.piece(id), text = tokenizer.decode([id]);
  // SentencePiece drops the space before a text's first word, so a piece alone would lose it.
  const shown = text.includes("\ufffd") ? piece : piece.startsWith("▁") && !text.startsWith(" ") ? ` ${text}` : text;
  // Control characters but tabs and line ends would move the cursor.
  // deno-lint-ignore no-control-regex
  return shown.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "·").replaceAll("\n", "⏎\n");
}
