/**
 * Writing GGUF version 3: the header first, then one tensor after another, in bounded memory; under a temporary name
 * until it is whole. Layout: ggml/include/gguf.h.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import {
  GGML_TYPES,
  type GgufType,
  type GgufValue,
  MAX_NAME,
  VALUE_BYTES,
  VALUE_TYPES,
  type ValueType,
} from "./gguf.ts";
import { type NewFile, writeWhole } from "./new_file.ts";
import { plannedBytes, type TensorToWrite, writeTensor } from "./safetensors_write.ts";

/** Metadata to be written: value and type by key, in this order. */
export type GgufMeta = Map<string, { value: GgufValue; type: GgufType }>;

const utf8 = new TextEncoder();

/** Bytes appended to a buffer that doubles. */
class Header {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  #size = 0;

  #grow(n: number): number {
    if (this.#size + n > this.#bytes.length) {
      const next = new Uint8Array(Math.max(2 * this.#bytes.length, this.#size + n));
      next.set(this.#bytes);
      this.#bytes = next;
      this.#view = new DataView(next.buffer);
    }
    this.#size += n;
    return this.#size - n;
  }

  u32(n: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, n, true);
  }

  u64(n: number | bigint): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt(n), true);
  }

  string(s: string): void {
    const bytes = utf8.encode(s);
    this.u64(bytes.length);
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** One number of the given type. @throws {ConfigError} when the type cannot hold it */
  number(type: Exclude<ValueType, "string">, value: number | bigint | boolean, key: string): void {
    const at = this.#grow(VALUE_BYTES[type]);
    const n = Number(value);
    const v = this.#view;
    if (type === "f32") return v.setFloat32(at, n, true);
    if (type === "f64") return v.setFloat64(at, n, true);
    const bits = 8 * VALUE_BYTES[type];
    const low = type[0] === "i" ? -(2 ** (bits - 1)) : 0;
    const high = type === "bool" ? 1 : low + 2 ** bits - 1;
    if (typeof value === "number" && !Number.isInteger(n) || n < low || n > high) {
      throw new ConfigError(`Cannot write '${key}': ${value} is no ${type}`);
    }
    if (bits === 8) v.setUint8(at, n);
    else if (bits === 16) v.setUint16(at, n, true);
    else if (bits === 32) v.setUint32(at, n, true);
    else v.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }
}

function writeMeta(h: Header, key: string, value: GgufValue, { type, array }: GgufType): void {
  h.string(key);
  if (array) h.u32(VALUE_TYPES.indexOf("array"));
  h.u32(VALUE_TYPES.indexOf(type));
  const values = array ? value as ArrayLike<number | bigint | string | boolean> : [value as number | string];
  if (array) h.u64(values.length);
  for (let i = 0; i < values.length; i++) {
    if (type === "string") h.string(values[i] as string);
    else h.number(type, values[i] as number, key);
  }
}

/** Names, shapes, types and the offsets that the tensors will have. */
function writeInfos(h: Header, tensors: readonly TensorToWrite[], alignment: number): void {
  const seen = new Set<string>();
  let at = 0;
  for (const t of tensors) {
    const code = GGML_TYPES[t.dtype];
    const refuse = (why: string) => new ConfigError(`Cannot write '${t.name}' as GGUF: ${why}`);
    if (code === undefined) throw refuse(`the format has no type ${t.dtype}`);
    if (seen.has(t.name)) throw refuse("two tensors have this name");
    if (utf8.encode(t.name).length > MAX_NAME) throw refuse(`llama.cpp reads names of at most ${MAX_NAME} bytes`);
    if (t.shape.length < 1 || t.shape.length > 4) throw refuse(`ggml has 1 to 4 dimensions and this is [${t.shape}]`);
    seen.add(t.name);
    h.string(t.name);
    h.u32(t.shape.length);
    for (const n of [...t.shape].reverse()) h.u64(n);
    h.u32(code);
    h.u64(at);
    at += Math.ceil(plannedBytes(t) / alignment) * alignment;
  }
}

/**
 * Writes a GGUF file. Chunks of a tensor are asked for when its turn has come.
 * @param meta written in its order; `general.alignment` is obeyed when present
 * @param onTensor called after each tensor with the bytes written so far
 * @throws {ConfigError} for names, types or values that GGUF cannot hold; {ShapeError} for chunks that do not fit
 */
export function writeGguf(
  path: string,
  meta: GgufMeta,
  tensors: readonly TensorToWrite[],
  onTensor?: (t: TensorToWrite, bytes: number) => void,
): Promise<void> {
  const alignment = Number(meta.get("general.alignment")?.value ?? 32);
  const h = new Header();
  h.u32(0x46554747); // "GGUF"
  h.u32(3);
  h.u64(tensors.length);
  h.u64(meta.size);
  for (const [key, { value, type }] of meta) writeMeta(h, key, value, type);
  writeInfos(h, tensors, alignment);
  return writeWhole(path, async (file: NewFile) => {
    file.write(h.bytes());
    file.pad(alignment);
    for (const t of tensors) {
      await writeTensor(file, t);
      file.pad(alignment);
      onTensor?.(t, file.size);
    }
  });
}

/** The type GGUF readers expect where none is named: u32 for whole numbers, f32 for others. */
export function typeOfValue(value: GgufValue): GgufType {
  if (typeof value === "string") return { type: "string", array: false };
  if (typeof value === "boolean") return { type: "bool", array: false };
  if (typeof value === "bigint") return { type: "u64", array: false };
  if (typeof value === "number") {
    const whole = Number.isInteger(value) && value >= 0 && value < 2 ** 32;
    return { type: whole ? "u32" : value < 0 && Number.isInteger(value) ? "i32" : "f32", array: false };
  }
  if (value instanceof Int32Array) return { type: "i32", array: true };
  if (value instanceof Float32Array) return { type: "f32", array: true };
  if (value instanceof Uint32Array) return { type: "u32", array: true };
  if (Array.isArray(value)) return { type: typeof value[0] === "boolean" ? "bool" : "string", array: true };
  throw new ConfigError(`Cannot choose a GGUF type for ${Object.prototype.toString.call(value)}: name it`);
}
