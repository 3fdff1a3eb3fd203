/** Columns of records: under other names, inside objects, and those that nobody reads. @module */
import { ConfigError } from "../core/errors.ts";
import { type Format, FORMATS } from "./formats/mod.ts";

type Columns = Readonly<Record<string, unknown>>;

/** A mapping of columns: ours to the file's. */
export type ColumnMap = Readonly<Record<string, string>>;

/** The value of a column; `a.b` and `a.0` reach into objects and lists, where no column has that very name. */
export function valueAt(record: Columns, column: string): unknown {
  if (Object.hasOwn(record, column) || !column.includes(".")) return record[column];
  return column.split(".").reduce<unknown>(
    (v, key) => typeof v === "object" && v !== null && Object.hasOwn(v, key) ? (v as Columns)[key] : undefined,
    record,
  );
}

/** The record with our names for the columns that are mapped; those a record lacks it goes on lacking. */
export function mapColumns(record: Columns, columns: ColumnMap): Columns {
  const mapped = Object.entries(columns).map(([our, their]) => [our, valueAt(record, their)] as const);
  if (mapped.length === 0) return record;
  return { ...record, ...Object.fromEntries(mapped.filter(([, value]) => value !== undefined)) };
}

/**
 * Counts of columns under our names.
 * @param keys how many records have each of the file's columns, mapped ones that lie inside others too
 * @throws {ConfigError} when a mapping names a column that is not there, or one no format has
 */
export function renameKeys(keys: ReadonlyMap<string, number>, columns: ColumnMap, name: string): Map<string, number> {
  const ours = new Set(FORMATS.flatMap((f) => f.columns));
  const renamed = new Map(keys);
  for (const [our, their] of Object.entries(columns)) {
    if (!ours.has(our)) {
      throw new ConfigError(`Cannot map a column to '${our}': the formats' columns are ${[...ours].join(", ")}`);
    }
    const count = keys.get(their);
    if (count === undefined) {
      throw new ConfigError(
        `Cannot map '${their}' to '${our}': '${name}' has the columns ${[...keys.keys()].join(", ")}`,
      );
    }
    renamed.set(our, count);
  }
  return renamed;
}

/** Columns of a record that its format does not look at, mapped ones left out; none where the record cannot be read. */
export function unreadColumns(format: Format, record: Columns, columns: ColumnMap): string[] {
  const read = new Set(Object.values(columns).flatMap((their) => [their, their.split(".")[0]!]));
  const watched = new Proxy(mapColumns(record, columns), {
    get(target, key) {
      read.add(String(key));
      return Reflect.get(target, key);
    },
  });
  try {
    format.read(watched);
  } catch {
    return [];
  }
  return Object.keys(record).filter((key) => !read.has(key));
}
