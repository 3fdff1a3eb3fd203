/** Plain text and Markdown: a file is one text, in pieces where it is long. @module */
import { NOT_UTF8, readLines } from "./lines.ts";
import type { RawRecord } from "./record.ts";

/** Characters of a piece; pieces end at line ends, so that few tokens are made otherwise than in the whole text. */
const PIECE = 1 << 20;

/** Columns of a piece: its text, and whether it opens and closes the file. */
export function* readPlainText(path: string): Generator<RawRecord> {
  let lines: string[] = [], length = 0, first = true, begin = 1, last = 0;
  for (const { number, text } of readLines(path)) {
    if (text === null) {
      yield { file: path, line: number, bad: NOT_UTF8 };
      continue;
    }
    if (length + text.length > PIECE && lines.length) {
      yield { file: path, line: begin, value: { text: lines.join("\n") + "\n", first, last: false } };
      [lines, length, first, begin] = [[], 0, false, number];
    }
    lines.push(text);
    length += text.length + 1;
    last = number;
  }
  if (last > 0) yield { file: path, line: begin, value: { text: lines.join("\n"), first, last: true } };
}
