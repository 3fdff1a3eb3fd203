/**
 * Reading GGUF versions 2 and 3: metadata and where each tensor lies, never a tensor's bytes. Every length is held
 * against what is left of the file before anything is allocated. Layout: ggml/include/gguf.h.
 * @module
 */
import { FormatError } from "../core/errors.ts";
import { type ByteSource, openBytes } from "./bytes.ts";
import {
  GGML_TYPES,
  type Gguf,
  type GgufType,
  type GgufValue,
  type NumberArray,
  VALUE_BYTES,
  VALUE_TYPES,
  type ValueType,
} from "./gguf.ts";
import { blockOf, type StoredTensor, type StoredType } from "./stored.ts";

/** Bytes fetched at once while walking through the header. */
const WINDOW = 1 << 20;

/** Dimensions ggml has (GGML_MAX_DIMS). */
const MAX_DIMS = 4;

const TYPE_OF: ReadonlyMap<number, StoredType> = new Map(
  Object.entries(GGML_TYPES).map(([name, n]) => [n, name as StoredType]),
);

/** Walks forward through a file's header. */
class Cursor {
  at = 0;
  #window = new Uint8Array(0);
  #view = new DataView(this.#window.buffer);
  #from = 0;
  #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  readonly source: ByteSource;

  constructor(source: ByteSource) {
    this.source = source;
  }

  /** A FormatError at the place where reading stands. */
  refuse(why: string, at = this.at): FormatError {
    return new FormatError(`Cannot read '${this.source.name}': ${why} (byte ${at})`, this.source.name, at);
  }

  get left(): number {
    return this.source.size - this.at;
  }

  /** Makes `n` bytes visible and steps over them; returns their place in the window. */
  #take(n: number): number {
    if (n > this.left) throw this.refuse(`${n} bytes are needed and ${this.left} are left`);
    if (this.at < this.#from || this.at + n > this.#from + this.#window.length) {
      this.#window = this.source.read(this.at, Math.min(this.left, Math.max(n, WINDOW)));
      this.#view = new DataView(this.#window.buffer);
      this.#from = this.at;
    }
    this.at += n;
    return this.at - n - this.#from;
  }

  u32(): number {
    const p = this.#take(4);
    return this.#view.getUint32(p, true);
  }

  /** An unsigned 64-bit count or offset. @throws {FormatError} beyond 2^53 */
  u64(what: string): number {
    const p = this.#take(8);
    const n = this.#view.getUint32(p + 4, true) * 2 ** 32 + this.#view.getUint32(p, true);
    if (n > Number.MAX_SAFE_INTEGER) throw this.refuse(`${what} is ${n}`, this.at - 8);
    return n;
  }

  string(what: string): string {
    const length = this.u64(`the length of ${what}`);
    if (length > this.left) throw this.refuse(`${what} has ${length} bytes and ${this.left} are left`, this.at - 8);
    const p = this.#take(length);
    try {
      return this.#utf8.decode(this.#window.subarray(p, p + length));
    } catch {
      throw this.refuse(`${what} is not UTF-8`, this.at - length);
    }
  }

  /** The bytes of `n` items of `size`, copied. */
  raw(n: number, size: number, what: string): ArrayBuffer {
    if (n > this.left / size) throw this.refuse(`${what} has ${n} items and ${this.left} bytes are left`, this.at - 8);
    const p = this.#take(n * size);
    return this.#window.slice(p, p + n * size).buffer;
  }
}

const ARRAYS: Record<Exclude<ValueType, "string" | "bool">, new (b: ArrayBuffer) => NumberArray> = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f32: Float32Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f64: Float64Array,
};

function readType(c: Cursor, key: string): (typeof VALUE_TYPES)[number] {
  const n = c.u32();
  const type = VALUE_TYPES[n];
  if (!type) throw c.refuse(`'${key}' has value type ${n}`, c.at - 4);
  return type;
}

/** `n` values of one type. */
function readValues(c: Cursor, type: ValueType, n: number, key: string): readonly string[] | boolean[] | NumberArray {
  if (type === "string") {
    if (n > c.left / 8) throw c.refuse(`'${key}' has ${n} strings and ${c.left} bytes are left`, c.at - 8);
    const out: string[] = [];
    for (let i = 0; i < n; i++) out.push(c.string(`string ${i} of '${key}'`));
    return out;
  }
  const bytes = c.raw(n, VALUE_BYTES[type], `'${key}'`);
  if (type !== "bool") return new ARRAYS[type](bytes);
  const flags = new Uint8Array(bytes);
  const odd = flags.findIndex((b) => b > 1);
  if (odd >= 0) throw c.refuse(`a bool of '${key}' is ${flags[odd]}`, c.at - n + odd);
  return Array.from(flags, (b) => b === 1);
}

function readMeta(c: Cursor, count: number): { meta: Map<string, GgufValue>; types: Map<string, GgufType> } {
  // The shortest entry is an empty key (8), a type (4) and one byte.
  if (count > c.left / 13) throw c.refuse(`it says ${count} metadata keys and ends before them`, 16);
  const meta = new Map<string, GgufValue>();
  const types = new Map<string, GgufType>();
  for (let i = 0; i < count; i++) {
    const start = c.at;
    const key = c.string(`key ${i}`);
    if (meta.has(key)) throw c.refuse(`the key '${key}' stands twice`, start);
    let type = readType(c, key);
    const array = type === "array";
    if (type === "array") type = readType(c, key);
    if (type === "array") throw c.refuse(`'${key}' is an array of arrays`);
    const values = readValues(c, type, array ? c.u64(`the length of '${key}'`) : 1, key);
    const first = values[0]!;
    const small = typeof first === "bigint" && BigInt(Number(first)) === first && Number.isSafeInteger(Number(first));
    meta.set(key, array ? values : small ? Number(first) : first);
    types.set(key, { type, array });
  }
  return { meta, types };
}

/** A tensor's entry with its offset still relative to the data. */
function readTensorInfo(c: Cursor, i: number): StoredTensor {
  const name = c.string(`the name of tensor ${i}`);
  const refuse = (why: string, at = c.at) => c.refuse(`tensor '${name}' ${why}`, at);
  const dims = c.u32();
  if (dims > MAX_DIMS) throw refuse(`has ${dims} dimensions`, c.at - 4);
  const ne = Array.from({ length: dims }, (_, d) => c.u64(`dimension ${d} of '${name}'`));
  const code = c.u32();
  const dtype = TYPE_OF.get(code);
  if (!dtype) throw refuse(`has type ${code}, which is no ggml type known here`, c.at - 4);
  const { block, bytes: size } = blockOf(dtype);
  if ((ne[0] ?? 1) % block) throw refuse(`has rows of ${ne[0]}, no multiple of ${dtype}'s block ${block}`, c.at - 4);
  const bytes = ne.reduce((n, s) => n * s, 1) / block * size;
  const at = c.at;
  const offset = c.u64(`the offset of '${name}'`);
  if (bytes > c.source.size) throw refuse(`[${ne.reverse()}] ${dtype} takes ${bytes} bytes, more than the file`, at);
  return { name, dtype, shape: ne.reverse(), source: c.source, offset, bytes };
}

function readAlignment(c: Cursor, meta: Map<string, GgufValue>, types: Map<string, GgufType>): number {
  const value = meta.get("general.alignment") ?? 32;
  const n = Number(value);
  const typed = !types.has("general.alignment") || types.get("general.alignment")!.type === "u32";
  if (!typed || typeof value !== "number" || n <= 0 || (n & (n - 1)) !== 0) {
    throw c.refuse(`general.alignment is ${value}`);
  }
  return n;
}

/** Turns relative offsets into places in the file; refuses misaligned, overlapping and cut-off tensors. */
function placeTensors(c: Cursor, infos: StoredTensor[], alignment: number): Map<string, StoredTensor> {
  const data = Math.ceil(c.at / alignment) * alignment;
  const out = new Map<string, StoredTensor>();
  for (const t of infos) {
    const offset = data + t.offset;
    if (t.offset % alignment) throw c.refuse(`tensor '${t.name}' is not aligned to ${alignment} bytes`, offset);
    if (offset + t.bytes > c.source.size) {
      throw c.refuse(
        `tensor '${t.name}' ends at byte ${offset + t.bytes} and the file at ${c.source.size}`,
        c.source.size,
      );
    }
    if (out.has(t.name)) throw c.refuse(`the tensor '${t.name}' stands twice`, offset);
    out.set(t.name, { ...t, offset });
  }
  let end = data;
  for (const t of [...out.values()].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    if (t.offset < end) throw c.refuse(`tensor '${t.name}' overlaps the one before it`, t.offset);
    end = t.offset + t.bytes;
  }
  return out;
}

/**
 * Reads everything but the tensors' bytes.
 * @throws {FormatError} with the offset, on anything malformed or cut off
 */
export function parseGguf(source: ByteSource): Gguf {
  const c = new Cursor(source);
  if (source.size < 24 || c.u32() !== 0x46554747 /* "GGUF" */) {
    throw c.refuse("it does not start with GGUF", 0);
  }
  const version = c.u32();
  if (version !== 2 && version !== 3) {
    const big = (version & 0xffff) === 0 && version !== 0;
    throw c.refuse(big ? "it is big-endian" : `version ${version} is none of 2 and 3`, 4);
  }
  const tensorCount = c.u64("the number of tensors");
  const { meta, types } = readMeta(c, c.u64("the number of metadata keys"));
  // The shortest tensor entry is an empty name (8), dimensions (4), type (4) and offset (8).
  if (tensorCount > c.left / 24) throw c.refuse(`it says ${tensorCount} tensors and ends before them`, 8);
  const infos = Array.from({ length: tensorCount }, (_, i) => readTensorInfo(c, i));
  const alignment = readAlignment(c, meta, types);
  return { version, meta, types, tensors: placeTensors(c, infos, alignment), alignment, close: () => source.close() };
}

/** Opens a GGUF file. @throws {FormatError} with the offset, on anything malformed or cut off */
export function openGguf(path: string): Gguf {
  const source = openBytes(path);
  try {
    return parseGguf(source);
  } catch (e) {
    source.close();
    throw e;
  }
}
