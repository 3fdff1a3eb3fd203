/** Files read piece by piece: bytes, lines, records of one JSON object a line. @module */
import { Buffer } from "node:buffer";
import { closeSync, openSync, readSync } from "node:fs";
import { DataError } from "../../core/errors.ts";
import { parseRecord, type RawRecord } from "./record.ts";

/** Bytes of one read. */
const PIECE = 1 << 20;

/** What is wrong with bytes that are no text here, and the way out. */
export const NOT_UTF8 = "it is not UTF-8; save the file as UTF-8";

/**
 * The file's bytes in pieces; each piece is valid until the next is asked for.
 * @throws {DataError} for UTF-16, of which every line would be broken (PowerShell and Excel write it)
 */
export function* readPieces(path: string): Generator<Uint8Array> {
  const fd = openSync(path, "r");
  try {
    const buffer = new Uint8Array(PIECE);
    for (let n: number, first = true; (n = readSync(fd, buffer, 0, PIECE, null)) > 0; first = false) {
      const piece = buffer.subarray(0, n);
      if (first && isUtf16(piece)) {
        throw new DataError(`Cannot read '${path}': it is in UTF-16; save the file as UTF-8`, path, 1);
      }
      yield piece;
    }
  } finally {
    closeSync(fd);
  }
}

/** Whether the bytes begin with UTF-16's byte-order mark, or with a character of two bytes of which one is zero. */
function isUtf16([a, b]: Uint8Array): boolean {
  return (a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff) || (a === 0) !== (b === 0);
}

/** A line without its end; `text` is null where it is not UTF-8. */
export interface Line {
  number: number;
  text: string | null;
}

/** The file's lines; ends are LF or CRLF, a byte-order mark is dropped, an end after the last line opens no further line. */
export function* readLines(path: string): Generator<Line> {
  const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let rest: Uint8Array[] = [], number = 0;
  const finish = (end: Uint8Array): Line => {
    const bytes = rest.length ? Buffer.concat([...rest, end]) : end;
    rest = [];
    number++;
    try {
      let text = utf8.decode(bytes);
      if (number === 1 && text.startsWith("\ufeff")) text = text.slice(1);
      return { number, text: text.endsWith("\r") ? text.slice(0, -1) : text };
    } catch {
      return { number, text: null };
    }
  };
  for (const piece of readPieces(path)) {
    let from = 0;
    for (let to: number; (to = piece.indexOf(10, from)) >= 0; from = to + 1) yield finish(piece.subarray(from, to));
    if (from < piece.length) rest.push(piece.slice(from));
  }
  if (rest.length) yield finish(new Uint8Array(0));
}

/** One JSON object a line. Empty lines are records that are missing, save at the end of the file. */
export function* readJsonLines(path: string): Generator<RawRecord> {
  let empty: number[] = [];
  for (const { number, text } of readLines(path)) {
    if (text !== null && text.trim() === "") {
      empty.push(number);
      continue;
    }
    for (const line of empty) yield { file: path, line, bad: "the line is empty" };
    empty = [];
    yield text === null ? { file: path, line: number, bad: NOT_UTF8 } : parseRecord(text, path, number);
  }
}
