/** Comma-separated values as RFC 4180 has them: a header, quoted fields that may hold separators and line ends. @module */
import { DataError } from "../../core/errors.ts";
import { NOT_UTF8, readPieces } from "./lines.ts";
import type { RawRecord } from "./record.ts";

/** Fields of one record and the line it begins on. */
interface Fields {
  line: number;
  fields: string[];
  bad?: string;
}

/**
 * Records with the header's names; every value is a text. The separator of a .csv is the one its header has most of.
 * @throws {DataError} when the file is not UTF-8 or names a column twice
 */
export function* readCsv(path: string): Generator<RawRecord> {
  const rows = splitFields(path, path.toLowerCase().endsWith(".tsv") ? "\t" : null);
  const head = rows.next();
  if (head.done) return;
  if (head.value.bad) throw new DataError(`Cannot read '${path}' line 1: ${head.value.bad}`, path, 1);
  const names = head.value.fields.map((n) => n.trim());
  const twice = names.find((n, i) => names.indexOf(n) < i);
  if (twice !== undefined) throw new DataError(`Cannot read '${path}': it has the column '${twice}' twice`, path, 1);
  for (const { line, fields, bad } of rows) {
    if (bad) yield { file: path, line, bad };
    else if (fields.length === 1 && fields[0] === "" && names.length > 1) {
      yield { file: path, line, bad: "the line is empty" };
    } else if (fields.length !== names.length) {
      yield { file: path, line, bad: `it has ${fields.length} fields and the header ${names.length}` };
    } else yield { file: path, line, value: Object.fromEntries(names.map((n, i) => [n, fields[i]])) };
  }
}

/** The file as text, piece by piece. */
function* readText(path: string): Generator<string> {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  try {
    for (const piece of readPieces(path)) yield utf8.decode(piece, { stream: true });
    yield utf8.decode();
  } catch (e) {
    if (e instanceof TypeError) throw new DataError(`Cannot read '${path}': ${NOT_UTF8}`, path);
    throw e;
  }
}

function guessSeparator(text: string): string {
  const header = text.slice(0, text.search(/[\r\n]|$/)).replace(/"[^"]*"/g, "");
  const counts = [",", ";", "\t"].map((s) => ({ s, n: header.split(s).length }));
  return counts.reduce((best, c) => c.n > best.n ? c : best).s;
}

function* splitFields(path: string, given: string | null): Generator<Fields> {
  let separator = given, line = 1, begin = 1, field = "", fields: string[] = [];
  // Inside quotes; after a quote that may close them or be the first of two; nothing read of this record yet.
  let quoted = false, maybe = false, fresh = true, wasReturn = false, bad: string | undefined;
  for (const text of readText(path)) {
    separator ??= guessSeparator(text);
    for (let i = 0; i < text.length; i++) {
      const c = text[i]!;
      if (c === "\n") line++;
      if (quoted && !maybe) {
        if (c === '"') maybe = true;
        else field += c;
        continue;
      }
      if (maybe) {
        maybe = false;
        if (c === '"') {
          field += c;
          continue;
        }
        quoted = false;
        if (c !== separator && c !== "\n" && c !== "\r") bad = "text follows a closing quote";
      }
      const afterReturn = wasReturn;
      wasReturn = c === "\r";
      if (c === "\n" && afterReturn) {
        begin = line;
        continue;
      }
      if (c === '"' && field === "") quoted = true;
      else if (c === separator) {
        fields.push(field);
        field = "";
      } else if (c === "\n" || c === "\r") {
        yield { line: begin, fields: [...fields, field], bad };
        [field, fields, fresh, begin, bad] = ["", [], true, line, undefined];
        continue;
      } else field += c;
      fresh = false;
    }
  }
  if (quoted && !maybe) yield { line: begin, fields, bad: "a quote is not closed" };
  else if (!fresh) yield { line: begin, fields: [...fields, field], bad };
}
