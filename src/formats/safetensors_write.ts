/**
 * Writing safetensors: tensors are announced first, then their bytes are asked for one tensor at a time, so that a
 * model larger than memory can be written. Sharding follows transformers' save_pretrained.
 * @module
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ShapeError } from "../core/errors.ts";
import { type NewFile, writeWhole } from "./new_file.ts";
import { SAFETENSORS_TYPES } from "./safetensors.ts";
import { blockOf, type StoredType } from "./stored.ts";

/** Bytes of a tensor, whole or in pieces, in row order. */
export type Chunks = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** A tensor to be written; `chunks` is called once, when its turn has come. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: StoredType;
  /** Row-major. */
  readonly shape: readonly number[];
  readonly chunks: () => Chunks;
}

const NAME_OF: ReadonlyMap<StoredType, string> = new Map(
  Object.entries(SAFETENSORS_TYPES).map(([name, type]) => [type, name]),
);

/** Bytes of a tensor that is to be written. */
export function plannedBytes(t: Pick<TensorToWrite, "dtype" | "shape">): number {
  const { block, bytes } = blockOf(t.dtype);
  return t.shape.reduce((n, s) => n * s, 1) / block * bytes;
}

/** Writes all chunks of one tensor. @throws {ShapeError} when they are not exactly the bytes its shape says */
export async function writeTensor(file: NewFile, t: TensorToWrite): Promise<void> {
  const start = file.size;
  for await (const chunk of t.chunks()) file.write(chunk);
  const [got, wish] = [file.size - start, plannedBytes(t)];
  if (got !== wish) {
    throw new ShapeError(`Cannot write '${t.name}': [${t.shape}] ${t.dtype} takes ${wish} bytes and ${got} came`);
  }
}

function header(tensors: readonly TensorToWrite[], metadata: Record<string, string>): Uint8Array {
  const entries: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const t of tensors) {
    const dtype = NAME_OF.get(t.dtype);
    if (!dtype) throw new ShapeError(`Cannot write '${t.name}' as safetensors: the format has no type ${t.dtype}`);
    if (Object.hasOwn(entries, t.name)) throw new RangeError(`Cannot write two tensors named '${t.name}'`);
    entries[t.name] = { dtype, shape: t.shape, data_offsets: [at, at += plannedBytes(t)] };
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(json, 8);
  return out;
}

/**
 * Writes one safetensors file under a temporary name and renames it.
 * @param metadata the header's `__metadata__`; transformers and peft want `format: "pt"`, which is the default
 * @throws {ShapeError} for a type the format does not have, or chunks that do not fit the shape
 */
export function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string> = { format: "pt" },
): Promise<void> {
  return writeWhole(path, async (file) => {
    file.write(header(tensors, metadata));
    for (const t of tensors) await writeTensor(file, t);
  });
}

/** A tensor whose values are in memory. */
export function floatTensor(name: string, values: Float32Array, shape: readonly number[]): TensorToWrite {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { name, dtype: "f32", shape, chunks: () => [bytes] };
}

/** Splits in the given order so that no shard passes `limit` bytes, unless one tensor alone does. */
function shard(tensors: readonly TensorToWrite[], limit: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let used = 0;
  for (const t of tensors) {
    const bytes = plannedBytes(t);
    if (used > 0 && used + bytes > limit) {
      shards.push([]);
      used = 0;
    }
    shards[shards.length - 1]!.push(t);
    used += bytes;
  }
  return shards;
}

/**
 * Writes a model's weights into a folder: model.safetensors, or model-00001-of-0000N.safetensors and an index.
 * @param limit bytes of a shard; transformers' default is 5 GB
 * @returns the names of the files written
 */
export async function writeSafetensorsFolder(
  dir: string,
  tensors: readonly TensorToWrite[],
  limit = 5e9,
): Promise<string[]> {
  const shards = shard(tensors, limit);
  const [single, indexName] = ["model.safetensors", "model.safetensors.index.json"];
  if (shards.length === 1) {
    await writeSafetensors(join(dir, single), tensors);
    rmSync(join(dir, indexName), { force: true }); // of an earlier, sharded model in this folder
    return [single];
  }
  const digits = (n: number) => String(n).padStart(5, "0");
  const names = shards.map((_, i) => `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`);
  const map: Record<string, string> = {};
  for (const [i, s] of shards.entries()) {
    await writeSafetensors(join(dir, names[i]!), s);
    for (const t of s) map[t.name] = names[i]!;
  }
  const total = tensors.reduce((n, t) => n + plannedBytes(t), 0);
  const index = JSON.stringify({ metadata: { total_size: total }, weight_map: map }, null, 2) + "\n";
  rmSync(join(dir, single), { force: true });
  await writeWhole(join(dir, indexName), async (file) => file.write(new TextEncoder().encode(index)));
  return [...names, indexName];
}
