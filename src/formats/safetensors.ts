/**
 * Reading safetensors: a JSON header with every tensor's type, shape and place, then the bytes. Nothing but the header
 * is read here. Specification: huggingface/safetensors README "Format"; the same strictness (no holes, no overlaps,
 * header at most 100 MB).
 * @module
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "../core/errors.ts";
import { type ByteSource, openBytes } from "./bytes.ts";
import { blockOf, type StoredTensor, type StoredType } from "./stored.ts";

/** The specification's names of types and ours. */
export const SAFETENSORS_TYPES: Readonly<Record<string, StoredType>> = {
  F64: "f64",
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  F8_E4M3: "fp8_e4m3",
  F8_E5M2: "fp8_e5m2",
  I64: "i64",
  I32: "i32",
  I16: "i16",
  I8: "i8",
  U64: "u64",
  U32: "u32",
  U16: "u16",
  U8: "u8",
  BOOL: "bool",
};

/** Largest header the specification allows, in bytes. */
const MAX_HEADER = 100_000_000;

/** An opened safetensors file, or several that make one model. */
export interface Safetensors {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The header's `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  close(): void;
}

function parseJson(text: string, name: string, start: number): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (e) {
    throw new FormatError(`Cannot read the header of '${name}': ${(e as Error).message}`, name, start);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(`Cannot read the header of '${name}': it is no JSON object`, name, start);
  }
  return value as Record<string, unknown>;
}

const isSize = (n: unknown): n is number => typeof n === "number" && Number.isSafeInteger(n) && n >= 0;

/** One entry of the header, checked against the file's size. */
function readEntry(name: string, entry: unknown, source: ByteSource, data: number, at: number): StoredTensor {
  const refuse = (why: string) =>
    new FormatError(`Cannot read tensor '${name}' of '${source.name}': ${why}`, source.name, at);
  if (typeof entry !== "object" || entry === null) throw refuse("its entry is no object");
  const { dtype, shape, data_offsets: range } = entry as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(SAFETENSORS_TYPES, dtype)) throw refuse(`unknown dtype '${dtype}'`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw refuse("its shape is no list of sizes");
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isSize) || range[0] > range[1]) {
    throw refuse("its data_offsets are no range");
  }
  const type = SAFETENSORS_TYPES[dtype]!;
  const bytes = shape.reduce((n: number, s: number) => n * s, blockOf(type).bytes);
  if (bytes !== range[1] - range[0]) {
    throw refuse(`[${shape}] ${dtype} takes ${bytes} bytes and its range has ${range[1] - range[0]}`);
  }
  if (data + range[1] > source.size) {
    throw refuse(`it ends at byte ${data + range[1]} and the file at ${source.size}`);
  }
  return { name, dtype: type, shape, source, offset: data + range[0], bytes };
}

/** Refuses holes and overlaps: every byte after the header belongs to exactly one tensor. */
function checkCover(tensors: Map<string, StoredTensor>, source: ByteSource, data: number): void {
  let at = data;
  for (const t of [...tensors.values()].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    if (t.offset !== at) {
      throw new FormatError(
        `Cannot read '${source.name}': tensor '${t.name}' starts at byte ${t.offset}, the one before ends at ${at}`,
        source.name,
        t.offset,
      );
    }
    at += t.bytes;
  }
  if (at !== source.size) {
    throw new FormatError(
      `Cannot read '${source.name}': its tensors end at byte ${at} and the file at ${source.size}`,
      source.name,
      at,
    );
  }
}

/**
 * Reads the header of one file.
 * @throws {FormatError} with the offset, on anything malformed or cut off
 */
export function parseSafetensors(source: ByteSource): Safetensors {
  if (source.size < 8) {
    throw new FormatError(`Cannot read '${source.name}': ${source.size} bytes are no safetensors`, source.name, 0);
  }
  const length = Number(new DataView(source.read(0, 8).buffer).getBigUint64(0, true));
  if (length > MAX_HEADER || 8 + length > source.size) {
    throw new FormatError(
      `Cannot read '${source.name}': its header says ${length} bytes and the file has ${source.size}`,
      source.name,
      0,
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(source.read(8, length));
  } catch {
    throw new FormatError(`Cannot read the header of '${source.name}': it is not UTF-8`, source.name, 8);
  }
  const header = parseJson(text, source.name, 8);
  const tensors = new Map<string, StoredTensor>();
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    const at = 8 + Math.max(0, text.indexOf(JSON.stringify(name)));
    if (name !== "__metadata__") {
      tensors.set(name, readEntry(name, entry, source, 8 + length, at));
    } else if (entry === null) {
      continue; // MLX writes this where there is none, and the safetensors library takes it
    } else if (typeof entry === "object" && Object.values(entry).every((v) => typeof v === "string")) {
      metadata = entry as Record<string, string>;
    } else {
      throw new FormatError(`Cannot read '${source.name}': its __metadata__ is no map of strings`, source.name, at);
    }
  }
  checkCover(tensors, source, 8 + length);
  return { tensors, metadata, close: () => source.close() };
}

/** Opens one safetensors file. @throws {FormatError} with the offset, on anything malformed or cut off */
export function openSafetensors(path: string): Safetensors {
  const source = openBytes(path);
  try {
    return parseSafetensors(source);
  } catch (e) {
    source.close();
    throw e;
  }
}

/** The weight_map of a sharded model. */
function readIndex(path: string): Map<string, string> {
  const index = parseJson(readFileSync(path, "utf8"), path, 0);
  const map = index.weight_map;
  if (typeof map !== "object" || map === null) {
    throw new FormatError(`Cannot read '${path}': it has no weight_map`, path, 0);
  }
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || /[\\/]/.test(file) || file === "..") {
      throw new FormatError(`Cannot read '${path}': '${name}' is said to lie in '${file}'`, path, 0);
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/**
 * Opens the weights of a Hugging Face folder: model.safetensors, or the shards its index names.
 * @throws {FormatError} when a file is malformed or a tensor of the index is missing from its shard
 */
export function openSafetensorsFolder(dir: string): Safetensors {
  const single = join(dir, "model.safetensors");
  const indexPath = single + ".index.json";
  if (existsSync(single)) return openSafetensors(single);
  if (!existsSync(indexPath)) {
    const pickled = existsSync(join(dir, "pytorch_model.bin"))
      ? "; pickles (pytorch_model.bin) can run code: save it again with transformers' save_pretrained"
      : "";
    throw new FormatError(
      `Cannot open the weights of '${dir}': it has no model.safetensors and no index of shards${pickled}`,
      dir,
      0,
    );
  }
  const index = readIndex(indexPath);
  const shards = new Map<string, Safetensors>();
  const close = () => shards.forEach((s) => s.close());
  const tensors = new Map<string, StoredTensor>();
  try {
    for (const [name, file] of index) {
      const shard = shards.get(file) ?? openSafetensors(join(dir, file));
      shards.set(file, shard);
      const t = shard.tensors.get(name);
      if (!t) throw new FormatError(`Cannot read '${indexPath}': '${file}' has no tensor '${name}'`, indexPath, 0);
      tensors.set(name, t);
    }
  } catch (e) {
    close();
    throw e;
  }
  return { tensors, metadata: {}, close };
}
