/** Parquet files through hyparquet, one row group in memory at a time. @module */
import { type AsyncBuffer, type Compressors, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import * as zlib from "node:zlib";
import { DataError } from "../../core/errors.ts";
import { ExactNumber } from "../../core/json.ts";
import { type ByteSource, openBytes } from "../../formats/bytes.ts";
import { type RawRecord, recordOf } from "./record.ts";

type Inflate = (bytes: Uint8Array) => Uint8Array;

/** Snappy is hyparquet's own; these come from the runtime, which may lack zstd. */
function compressors(): Compressors {
  const zstd = (zlib as { zstdDecompressSync?: Inflate }).zstdDecompressSync;
  const all: Record<string, Inflate | undefined> = {
    GZIP: zlib.gunzipSync,
    BROTLI: zlib.brotliDecompressSync,
    ZSTD: zstd,
  };
  return Object.fromEntries(
    Object.entries(all).filter(([, f]) => f).map(([name, f]) => [name, (b: Uint8Array) => new Uint8Array(f!(b))]),
  );
}

/**
 * Numbers of 64 bits become plain ones where they fit, so that texts made of them read as expected. Objects inside a column
 * share their keys in this format and have null where one lacks a key: those are left out, as TRL leaves them out.
 */
function plain(value: unknown, depth = 0): unknown {
  if (typeof value === "bigint") {
    return Number.isSafeInteger(Number(value)) ? Number(value) : new ExactNumber(String(value));
  }
  if (Array.isArray(value)) return value.map((v) => plain(v, depth + 1));
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    const entries = Object.entries(value).filter(([, v]) => depth === 0 || (v !== null && v !== undefined));
    return Object.fromEntries(entries.map(([k, v]) => [k, plain(v, depth + 1)]));
  }
  return value;
}

/** Both ends of the file are "PAR1". */
function checkMagic(source: ByteSource): void {
  const { size } = source, has = (at: number) => new TextDecoder().decode(source.read(at, 4)) === "PAR1";
  if (size < 12 || !has(0) || !has(size - 4)) throw new Error(`its ${size} bytes are no Parquet file`);
}

/** Records with the file's column names. @throws {DataError} when the file is broken or compressed in an unknown way */
export async function* readParquet(path: string): AsyncGenerator<RawRecord> {
  const source = openBytes(path);
  const file: AsyncBuffer = {
    byteLength: source.size,
    slice: (from, to = source.size) => Promise.resolve(source.read(from, to - from).buffer),
  };
  try {
    checkMagic(source);
    const metadata = await parquetMetadataAsync(file);
    let row = 0;
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows);
      const range = { file, metadata, rowStart: row, rowEnd: row + rows, compressors: compressors() };
      for (const value of await parquetReadObjects(range)) yield recordOf(plain(value), path, ++row);
    }
  } catch (e) {
    throw new DataError(`Cannot read '${path}': ${(e as Error).message}`, path);
  } finally {
    source.close();
  }
}
