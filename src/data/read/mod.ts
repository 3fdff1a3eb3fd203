/** Records of a file or a folder, by the file's ending. @module */
import { existsSync, readdirSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { ConfigError, DataError } from "../../core/errors.ts";
import { readCsv } from "./csv.ts";
import { readJson, readJsonl } from "./json.ts";
import { readParquet } from "./parquet.ts";
import type { RawRecord } from "./record.ts";
import { readPlainText } from "./text.ts";

export { type RawRecord, recordOf } from "./record.ts";

type Reader = (path: string) => Iterable<RawRecord> | AsyncIterable<RawRecord>;

/** Readers by ending. */
const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  [".json", readJson],
  [".jsonl", readJsonl],
  [".ndjson", readJsonl],
  [".csv", readCsv],
  [".tsv", readCsv],
  [".parquet", readParquet],
  [".txt", readPlainText],
  [".md", readPlainText],
]);

/** Endings of files that are one text each. */
const RAW: ReadonlySet<string> = new Set([".txt", ".md"]);

/** Files of a dataset, in the order they are read. */
export interface Files {
  paths: readonly string[];
  /** Bytes of all. */
  bytes: number;
  /** Every file is one text. */
  raw: boolean;
  /** Files of the folder that are not read, by name. */
  leftOut: readonly string[];
}

/** Whether the name ends as a file of data does. */
export function isDataFile(name: string): boolean {
  return READERS.has(endingOf(name));
}

function endingOf(path: string): string {
  return extname(path).toLowerCase();
}

/**
 * The files behind a path. Of a folder whose files are named after splits, those with "train" in their names.
 * @throws {ConfigError} for a path that does not exist or has an unknown ending; {DataError} for a folder without data
 */
export function findFiles(path: string): Files {
  if (!existsSync(path)) throw new ConfigError(`Cannot open the dataset '${path}': there is no such file or folder`);
  const known = [...READERS.keys()].join(", ");
  if (!statSync(path).isDirectory()) {
    if (!READERS.has(endingOf(path))) {
      throw new ConfigError(`Cannot open the dataset '${path}': its ending is none of ${known}`);
    }
    return { paths: [path], bytes: statSync(path).size, raw: RAW.has(endingOf(path)), leftOut: [] };
  }
  const found = (readdirSync(path, { recursive: true }) as string[])
    .filter((n) => READERS.has(endingOf(n)) && !/(^|[\\/])(\.|readme|licen[sc]e|dataset_infos?)/i.test(n))
    .filter((n) => statSync(join(path, n)).isFile()).sort();
  const isTrain = (n: string) => /(^|[^a-z])train/i.test(n),
    isOther = (n: string) => /(^|[^a-z])(test|eval|val|dev)/i.test(n);
  const read = found.some(isTrain) && found.some(isOther) ? found.filter(isTrain) : found;
  const rawCount = read.filter((n) => RAW.has(endingOf(n))).length;
  if (read.length === 0) throw new DataError(`Cannot open the dataset '${path}': no file in it ends in ${known}`, path);
  if (rawCount > 0 && rawCount < read.length) {
    throw new DataError(`Cannot open the dataset '${path}': it mixes texts with records; name one of its files`, path);
  }
  const paths = read.map((n) => join(path, n));
  return {
    paths,
    bytes: paths.reduce((n, p) => n + statSync(p).size, 0),
    raw: rawCount > 0,
    leftOut: found.filter((n) => !read.includes(n)),
  };
}

/** Records of all files, one after the other. */
export async function* readRecords(files: Files): AsyncGenerator<RawRecord> {
  for (const path of files.paths) yield* READERS.get(endingOf(path))!(path);
}
