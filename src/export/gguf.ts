/**
 * Writes a merged model as GGUF: rows are read, merged, put in the file's form, encoded by the codec's workers and
 * written, a chunk at a time, so that memory stays bounded whatever the model's size.
 * @module
 */
import type { BlockCodec } from "../core/block_codec.ts";
import { type DType, isQuant } from "../core/dtype.ts";
import { ConfigError } from "../core/errors.ts";
import { encodeFiniteHalves } from "../formats/float16.ts";
import { writeGguf } from "../formats/gguf_write.ts";
import { canQuantize, quantize } from "../formats/quantize.ts";
import { floatTensor, type TensorToWrite } from "../formats/safetensors_write.ts";
import { readBytes } from "../formats/stored.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import { type GgufIdentity, ggufMetaOf } from "./gguf_meta.ts";
import { type MergedModel, type MergedTensor, rowRanges } from "./merge.ts";
import { chooseTypes, type Quantization } from "./quantization.ts";

/** Elements of a chunk; with a few chunks a worker, megabytes in all. */
const CHUNK = 1 << 18;

/** Weight of each column of a tensor, by its GGUF name: how strongly its inputs are used. */
export type Importance = ReadonlyMap<string, Float32Array<ArrayBuffer>>;

/** How a GGUF is written. */
export interface GgufOptions extends GgufIdentity {
  readonly quantization: Quantization;
  readonly tokenizer: Tokenizer;
  /** Encodes blocks on worker threads; without one only types up to q8_0 can be written, on this thread. */
  readonly codec: BlockCodec | null;
  readonly importance?: Importance;
  readonly onProgress?: (bytes: number, total: number) => void;
}

/** Row j·d/2+i of each head goes to row 2i+j (conversion/llama.py, permute): `values` are whole heads. */
export function interleaveHeads(values: Float32Array, headRows: number, cols: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(values.length);
  const half = headRows / 2;
  for (let base = 0; base < values.length; base += headRows * cols) {
    for (let r = 0; r < headRows; r++) {
      const from = base + r * cols;
      out.set(values.subarray(from, from + cols), base + (2 * (r % half) + Math.floor(r / half)) * cols);
    }
  }
  return out;
}

/** Rows [from, to) as the file has them; a range of whole heads where rows are interleaved. */
function fileRows(t: MergedTensor, from: number, to: number): Float32Array<ArrayBuffer> {
  const values = t.rows(from, to);
  if (t.ggufAs === "plusOne") { for (let i = 0; i < values.length; i++) values[i]! += 1; }
  return t.unit > 1 ? interleaveHeads(values, t.unit, values.length / (to - from)) : values;
}

/** Promises in the order they were asked for, `width` of them in work at once. */
async function* inOrder<T>(jobs: Iterable<() => Promise<T>>, width: number): AsyncGenerator<T> {
  const running: Promise<T>[] = [];
  try {
    for (const job of jobs) {
      running.push(job());
      if (running.length >= width) yield await running.shift()!;
    }
    while (running.length) yield await running.shift()!;
  } finally {
    await Promise.allSettled(running);
  }
}

/** The tensor's bytes in the file, chunk by chunk. */
function encodeRows(t: MergedTensor, dtype: DType, o: GgufOptions): AsyncIterable<Uint8Array> {
  const cols = t.shape[1] ?? 1;
  const importance = o.importance?.get(t.gguf) ?? null;
  const { codec } = o;
  function* jobs(): Generator<() => Promise<Uint8Array>> {
    for (const [from, to] of rowRanges(t, CHUNK)) {
      yield async () => {
        const values = fileRows(t, from, to);
        if (codec && isQuant(dtype)) return await codec.encode(dtype, cols, values, importance);
        return dtype === "f16" ? encodeFiniteHalves(values, t.gguf) : quantize(dtype, values);
      };
    }
  }
  return inOrder(jobs(), codec ? 2 * codec.threads : 1);
}

/** A tensor of the file; bytes of an unchanged tensor that already has the type are copied. */
function plan(t: MergedTensor, dtype: DType, o: GgufOptions): TensorToWrite {
  const asItLies = t.stored.name === t.gguf && !t.changed && t.stored.dtype === dtype;
  const chunks = asItLies ? () => copyRows(t) : () => encodeRows(t, dtype, o);
  return { name: t.gguf, dtype, shape: t.shape, chunks };
}

function* copyRows(t: MergedTensor): Generator<Uint8Array> {
  for (const [from, to] of rowRanges(t, 4 * CHUNK)) yield readBytes(t.stored, from, to);
}

function checkImportance(model: MergedModel, importance: Importance): void {
  for (const t of model.tensors) {
    const weights = importance.get(t.gguf);
    if (!weights || t.shape.length < 2) continue;
    if (weights.length !== t.shape[1] || !weights.every(Number.isFinite)) {
      throw new ConfigError(
        `Cannot use the importance matrix: '${t.gguf}' has ${t.shape[1]} columns and it has ${weights.length} weights` +
          `, which must be finite`,
      );
    }
  }
}

/** Types of the file's tensors; the model's own, then those the family adds (rotary factors), which are f32. */
function planTensors(model: MergedModel, o: GgufOptions): TensorToWrite[] {
  const { source, config, hf, tensors } = model;
  const types = chooseTypes(o.quantization, tensors, config, o.importance !== undefined);
  const odd = [...types.values()].find((d) => !canQuantize(d));
  if (odd && !o.codec) throw new ConfigError(`Cannot quantise to ${o.quantization}: ${odd} needs the codec module`);
  const extra = source.gguf
    ? [...source.gguf.tensors.values()].filter((t) => !tensors.some((own) => own.gguf === t.name)).map((t) => ({
      name: t.name,
      dtype: t.dtype,
      shape: t.shape,
      chunks: () => [readBytes(t)],
    }))
    : source.family.ggufExtra(config, hf).map((e) => floatTensor(e.name, e.values, [e.values.length]));
  return [...extra, ...tensors.map((t) => plan(t, types.get(t.gguf)!, o))];
}

/**
 * Writes the file under a temporary name and renames it.
 * @throws {ConfigError} for what a GGUF of the architecture cannot express, values that are not finite, or an
 *   importance matrix of another model
 */
export async function writeModelGguf(path: string, model: MergedModel, o: GgufOptions): Promise<void> {
  if (o.importance) checkImportance(model, o.importance);
  const meta = ggufMetaOf(model, o.tokenizer, o.quantization, o);
  const tensors = planTensors(model, o);
  const elements = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  const total = tensors.reduce((n, t) => n + elements(t.shape), 0);
  let done = 0;
  await writeGguf(path, meta, tensors, (t) => o.onProgress?.(done += elements(t.shape), total));
}
