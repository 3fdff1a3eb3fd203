/**
 * A .json file: an array of records, read element by element so that it may be larger than memory; an object that holds such
 * an array under one key; or one object a line, which is common under this name too.
 * @module
 */
import { Buffer, isUtf8 } from "node:buffer";
import { readFileSync, statSync } from "node:fs";
import { DataError } from "../../core/errors.ts";
import { NOT_UTF8, readJsonLines, readLines, readPieces } from "./lines.ts";
import { parseRecord, type RawRecord, recordOf } from "./record.ts";

const [QUOTE, BACKSLASH, OPEN, CLOSE, OPEN_OBJECT, CLOSE_OBJECT, COMMA, NEWLINE, SPACE] = Buffer.from('"\\[]{},\n ');

/** Largest file that is parsed whole, in bytes: only for an object around the array. */
const WHOLE = 1 << 29;

/** Records of a .json file of any of the three kinds. @throws {DataError} when it is none of them */
export function* readJson(path: string): Generator<RawRecord> {
  const first = firstText(path);
  if (first === undefined) return;
  if (first.startsWith("[")) yield* readArray(path);
  else if (first.startsWith("{")) yield* isObject(first) ? readLinesOrOne(path) : readWhole(path);
  else throw new DataError(`Cannot read '${path}': it begins with neither [ nor {`, path, 1);
}

/** Records of a .jsonl file: one object a line, or, since some are saved so, one array. */
export function* readJsonl(path: string): Generator<RawRecord> {
  yield* beginsAsArray(path) ? readArray(path) : readJsonLines(path);
}

function beginsAsArray(path: string): boolean {
  for (const piece of readPieces(path)) {
    const text = piece.subarray(piece[0] === 0xef ? 3 : 0), first = text.find((b) => b > SPACE);
    if (first !== undefined) return first === OPEN;
  }
  return false;
}

/** The first line that has text, from its first character on. */
function firstText(path: string): string | undefined {
  for (const { text, number } of readLines(path)) {
    if (text === null) throw new DataError(`Cannot read '${path}' line ${number}: ${NOT_UTF8}`, path, number);
    if (text.trim() !== "") return text.trim();
  }
}

function isObject(text: string): boolean {
  return parseRecord(text, "", 0).value !== undefined;
}

/** A file whose first line is an object: one object a line, unless that line is all and holds an array of records. */
function* readLinesOrOne(path: string): Generator<RawRecord> {
  const records = readJsonLines(path);
  const first = records.next(), second = records.next();
  const rows = second.done && first.value?.value ? rowsIn(first.value.value) : undefined;
  if (rows) return yield* rows.map((r) => recordOf(r, path, 1));
  if (!first.done) yield first.value;
  if (!second.done) yield second.value;
  yield* records;
}

/** An object over several lines. */
function* readWhole(path: string): Generator<RawRecord> {
  const size = statSync(path).size;
  if (size > WHOLE) throw new DataError(`Cannot read '${path}': one object of ${size} bytes; use .jsonl`, path, 1);
  const bytes = readFileSync(path);
  if (!isUtf8(bytes)) throw new DataError(`Cannot read '${path}': ${NOT_UTF8}`, path);
  const record = parseRecord(bytes.toString("utf8").replace(/^\ufeff/, ""), path, 1);
  const rows = record.value && rowsIn(record.value);
  if (!rows) return yield record;
  yield* rows.map((r) => recordOf(r, path, 1));
}

/** The records inside an object that has nothing else of their kind: `{ "data": [{…}, …] }`. */
function rowsIn(value: Record<string, unknown>): unknown[] | undefined {
  const lists = Object.entries(value).filter(([key, v]) =>
    Array.isArray(v) && ["data", "rows", "train", "examples"].includes(key)
  );
  return lists.length === 1 ? lists[0]![1] as unknown[] : undefined;
}

/** An element of the array; `text` is null where it is not UTF-8. */
interface Element {
  text: string | null;
  line: number;
}

/** Splits the bytes of an array into those of its elements. */
class ElementScanner {
  line = 1;
  /** Line the current element began on. */
  begin = 1;
  depth = 0;
  done = false;
  #inString = false;
  #escaped = false;
  #parts: Uint8Array[] = [];

  /** Line of the first text after the array, once there is one. */
  after: number | null = null;

  /** Looks for text after the array: a second array or a torn file, which nobody would miss. */
  seek(piece: Uint8Array): void {
    for (const b of piece) {
      if (b === NEWLINE) this.line++;
      else if (b > SPACE) this.after ??= this.line;
    }
  }

  /** Elements that end in this piece, as texts with their lines. */
  *scan(piece: Uint8Array): Generator<Element> {
    let from = this.depth > 0 ? 0 : piece.length;
    for (let i = 0; i < piece.length; i++) {
      const b = piece[i]!;
      if (b === NEWLINE) this.line++;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (b === BACKSLASH) this.#escaped = true;
        else if (b === QUOTE) this.#inString = false;
        continue;
      }
      if (b === QUOTE) this.#inString = true;
      else if (b === OPEN || b === OPEN_OBJECT) {
        if (++this.depth === 1) [from, this.begin] = [i + 1, this.line];
      } else if (b === CLOSE || b === CLOSE_OBJECT) this.depth--;
      if (this.depth === 0 ? b === CLOSE : this.depth === 1 && b === COMMA) {
        this.done = this.depth === 0;
        yield* this.#end(piece.subarray(from, i));
        from = i + 1;
        if (this.done) return this.seek(piece.subarray(from));
      }
    }
    if (from < piece.length) this.#parts.push(piece.slice(from));
  }

  *#end(last: Uint8Array): Generator<Element> {
    const bytes = Buffer.concat([...this.#parts, last]);
    this.#parts = [];
    const text = bytes.toString("utf8");
    const valid = isUtf8(bytes);
    // The element's own line is where its first character stands, after the comma's spaces and line ends.
    const lead = text.slice(0, text.length - text.trimStart().length).split("\n").length - 1;
    yield { text: valid ? text.trim() : null, line: this.begin + lead };
    this.begin = this.line;
  }
}

function* readArray(path: string): Generator<RawRecord> {
  const scanner = new ElementScanner();
  let count = 0, hole: number | null = null;
  for (const piece of readPieces(path)) {
    if (scanner.done) {
      scanner.seek(piece);
      continue;
    }
    for (const { text, line } of scanner.scan(piece)) {
      if (hole !== null) yield { file: path, line: hole, bad: "there is nothing between two commas" };
      hole = null;
      if (text === null) yield { file: path, line, bad: NOT_UTF8 };
      else if (text !== "") yield parseRecord(text, path, line);
      // Nothing between the brackets is an empty array; nothing before a comma or after the last one is a record missing.
      else if (count > 0 || !scanner.done) hole = line;
      count++;
    }
  }
  if (hole !== null) yield { file: path, line: hole, bad: "a comma stands before the end of the array" };
  if (!scanner.done) yield { file: path, line: scanner.line, bad: "the file ends inside the array" };
  if (scanner.after !== null) yield { file: path, line: scanner.after, bad: "it stands after the end of the array" };
}
