/**
 * Opening a dataset: one pass over all records finds their keys, counts them and meets what is broken; later passes stream.
 * Small sets are kept in memory, so that they are parsed once.
 * @module
 */
import { DataError } from "../core/errors.ts";
import { turn } from "../core/turn.ts";
import { mapColumns, renameKeys, unreadColumns, valueAt } from "./columns.ts";
import { type Format, formatNamed, FORMATS } from "./formats/mod.ts";
import { fillPlaceholders, findPlaceholders } from "./placeholders.ts";
import { type Files, findFiles, type RawRecord, readRecords, recordOf } from "./read/mod.ts";
import type { Dataset, DatasetOptions, Example, FormatName, ReadRecord } from "./types.ts";

/** Bytes of files up to which records stay in memory after the first pass. */
const KEEP = 64 << 20;

/** Records between two moments in which an interruption is heard. */
const PAUSE = 1024;

/** What the first pass finds. */
interface Scan {
  records: number;
  bad: number;
  /** How many records have each key. */
  keys: Map<string, number>;
  /** The first record: what is told of columns is told by it. */
  first: Record<string, unknown> | null;
  kept: RawRecord[] | null;
  /** Placeholders without a value, with how many records have them. */
  placeholders: Map<string, number>;
}

/**
 * Opens a file, a folder or records in memory, and recognises its format from the keys of all records.
 * @param source path of a .json, .jsonl, .csv, .tsv, .parquet, .txt or .md file, of a folder of such files, or the records
 * @throws {DataError} naming file and line of the first broken record, unless `skipBadRows`; when no format fits; when empty
 * @throws {ConfigError} for a path or an option that cannot be
 * @example
 * ```ts
 * const dataset = await openDataset("alpaca.jsonl");
 * console.log(dataset.notes.join("\n"));
 * ```
 */
export async function openDataset(
  source: string | readonly unknown[],
  options: DatasetOptions = {},
): Promise<Dataset> {
  const files = typeof source === "string" ? findFiles(source) : null;
  const name = typeof source === "string" ? source : "rows in memory";
  const open = () => files ? readRecords(files) : fromMemory(source as readonly unknown[]);
  const scan = await scanRecords(open(), options, files === null || files.bytes <= KEEP);
  if (scan.records === 0) {
    throw new DataError(
      `Cannot train on '${name}': it holds no record${scan.bad ? ` and ${scan.bad} broken ones` : ""}`,
      name,
    );
  }
  const renamed = renameKeys(scan.keys, options.columns ?? {}, name);
  const format = chooseFormat(renamed, scan, options.format ?? "auto", name);
  return new OpenDataset(name, format, scan, files, options, open);
}

function* fromMemory(rows: readonly unknown[]): Generator<RawRecord> {
  for (let i = 0; i < rows.length; i++) yield recordOf(rows[i], "rows in memory", i + 1);
}

function refuseBad(record: { file: string; line: number }, why: string): DataError {
  return new DataError(
    `Cannot read '${record.file}' line ${record.line}: ${why}; mend it, or leave such records out with --skip_bad_rows`,
    record.file,
    record.line,
  );
}

async function scanRecords(records: AnyIterable<RawRecord>, o: DatasetOptions, keep: boolean): Promise<Scan> {
  const none = { records: 0, bad: 0, first: null }, kept: RawRecord[] | null = keep ? [] : null;
  const scan: Scan = { ...none, keys: new Map(), kept, placeholders: new Map() };
  const inside = Object.values(o.columns ?? {}).filter((column) => column.includes("."));
  for await (const record of records) {
    if (record.value) {
      scan.records++;
      scan.first ??= record.value;
      const deep = inside.filter((c) => !(c in record.value!) && valueAt(record.value!, c) !== undefined);
      for (const key of [...Object.keys(record.value), ...deep]) scan.keys.set(key, (scan.keys.get(key) ?? 0) + 1);
      for (const name of findPlaceholders(record.value)) {
        if (!Object.hasOwn(o.fill ?? {}, name)) scan.placeholders.set(name, (scan.placeholders.get(name) ?? 0) + 1);
      }
      scan.kept?.push(record);
      if (scan.records % PAUSE === 0) {
        await turn();
        o.signal?.throwIfAborted();
      }
      if (scan.records === o.limit) break;
    } else if (o.skipBadRows) scan.bad++;
    else throw refuseBad(record, record.bad!);
  }
  return scan;
}

function chooseFormat(
  keys: Map<string, number>,
  { records, first }: Scan,
  wanted: FormatName | "auto",
  name: string,
): Format {
  const inAll = new Set([...keys].filter(([, n]) => n === records).map(([k]) => k));
  if (wanted !== "auto") {
    const format = formatNamed(wanted);
    if (format.detect(inAll)) return format;
    throw new DataError(
      `Cannot read '${name}' as ${wanted}: it needs ${format.columns.join(", ")} and the records have ${
        listKeys(keys, records)
      }`,
      name,
    );
  }
  const found = FORMATS.find((f) => f.detect(inAll));
  if (found) return found;
  const known = FORMATS.map((f) => `${f.name} (${f.columns.slice(0, 2).join(", ")})`).join(", ");
  throw new DataError(
    `Cannot recognise the format of '${name}': the records have ${
      listKeys(keys, records)
    } and the formats are ${known}; ${wayOut(keys, inAll, first)}`,
    name,
  );
}

/** What to do about records of no known format. */
function wayOut(keys: Map<string, number>, inAll: ReadonlySet<string>, record: Scan["first"]): string {
  if (inAll.has("input_ids")) return "these are tokenised already, for another program: give the texts instead";
  if (FORMATS.some((f) => f.detect(new Set(keys.keys())))) {
    return "the records are of several kinds: give those of one kind in a file of their own";
  }
  const first = [...keys.keys()][0],
    isTurn = (v: unknown) => typeof v === "object" && v && ("role" in v || "from" in v);
  const chat = Object.entries(record ?? {}).find(([, v]) => Array.isArray(v) && isTurn(v[0]));
  if (chat) return `map the column of the turns: --columns messages=${chat[0]}`;
  return first === undefined
    ? "give records that have columns"
    : `map the columns, for example --columns instruction=${first}`;
}

/** Keys, with their counts where some records lack them. */
function listKeys(keys: Map<string, number>, records: number): string {
  return [...keys].map(([k, n]) => n === records ? k : `${k} (in ${n} of ${records})`).join(", ") || "no columns";
}

type AnyIterable<T> = Iterable<T> | AsyncIterable<T>;

class OpenDataset implements Dataset {
  readonly format: FormatName;
  readonly records: number;
  readonly notes: string[];
  #scanBad: number;
  #formatBad = 0;

  readonly source: string;
  private readonly reader: Format;
  private readonly scan: Scan;
  private readonly files: Files | null;
  private readonly options: DatasetOptions;
  private readonly open: () => AnyIterable<RawRecord>;

  constructor(
    source: string,
    reader: Format,
    scan: Scan,
    files: Files | null,
    options: DatasetOptions,
    open: () => AnyIterable<RawRecord>,
  ) {
    this.source = source;
    this.reader = reader;
    this.scan = scan;
    this.files = files;
    this.options = options;
    this.open = open;
    this.format = reader.name;
    this.records = scan.records;
    this.#scanBad = scan.bad;
    this.notes = this.#describe();
  }

  get badRows(): number {
    return this.#scanBad + this.#formatBad;
  }

  #describe(): string[] {
    const { scan, files } = this, many = files && files.paths.length > 1 ? ` in ${files.paths.length} files` : "";
    const mapped = Object.entries(this.options.columns ?? {}).map(([our, their]) => `${our} from ${their}`);
    const what = files?.raw ? "text, whole files" : `${this.format}, columns ${listKeys(scan.keys, scan.records)}`;
    const notes = [`Dataset ${this.source}: ${what}; ${scan.records} ${files?.raw ? "texts" : "records"}${many}`];
    if (mapped.length) notes.push(`Columns mapped: ${mapped.join(", ")}`);
    const unread = files?.raw || !scan.first ? [] : unreadColumns(this.reader, scan.first, this.options.columns ?? {});
    if (unread.length) notes.push(`Columns not used: ${unread.map((name) => name || "''").join(", ")}`);
    if (files?.leftOut.length) notes.push(`Not read: ${files.leftOut.join(", ")}`);
    // One record with braces is code; when a tenth have the same ones, they wait to be filled in.
    const open = [...scan.placeholders].filter(([, n]) => n >= scan.records / 10).map(([name]) => `{{${name}}}`);
    if (open.length) notes.push(`Placeholders left as they are: ${open.join(", ")}; give values to fill them in`);
    if (scan.bad) notes.push(`Broken records left out: ${scan.bad}`);
    return notes;
  }

  async *examples(): AsyncGenerator<ReadRecord> {
    let index = 0;
    this.#formatBad = 0;
    for await (const record of this.scan.kept ?? this.open()) {
      if (!record.value) {
        // Met and judged in the first pass.
        if (this.options.skipBadRows) continue;
        throw refuseBad(record, record.bad!);
      }
      const example = this.#read(record);
      if (example) yield { index, example, refuse: (why) => this.#refuse(record, why) };
      if (++index === this.options.limit) return;
    }
  }

  #read(record: RawRecord): Example | undefined {
    const value = record.value!;
    if (this.files?.raw) {
      const { text, first, last } = value as { text: string; first: boolean; last: boolean };
      return { kind: "text", text, raw: { first, last } };
    }
    try {
      return this.reader.read(this.#mapped(value));
    } catch (e) {
      if (!(e instanceof DataError)) throw e;
      this.#refuse(record, e.message);
    }
  }

  #refuse(record: RawRecord, why: string): void {
    if (!this.options.skipBadRows) throw refuseBad(record, why);
    this.#formatBad++;
  }

  #mapped(value: Record<string, unknown>): Readonly<Record<string, unknown>> {
    if (this.options.fill) value = fillPlaceholders(value, this.options.fill);
    return mapColumns(value, this.options.columns ?? {});
  }
}
