/**
 * Puts a model on a backend: weights are the file's own pages where the backend can use them (mapped.ts); else they stream
 * from the file into one slab, in their own type where the backend reads it in place and as f32 otherwise. Trained tensors
 * go to f32 slabs of their own.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import type { DType } from "../core/dtype.ts";
import { byteLength, type Handle, slice, type Tensor } from "../core/tensor.ts";
import type { FloatTensor } from "../formats/adapter.ts";
import { usableType } from "../formats/stored.ts";
import { type Checkpointing, checkpointing } from "../nn/checkpoint.ts";
import { Decoder } from "../nn/decoder.ts";
import { Params } from "../nn/params.ts";
import { FROZEN, type LoraOptions, moduleOf, planFull, planLora, type TrainPlan } from "./adapter.ts";
import type { ModelConfig } from "./config.ts";
import type { ModelSource, SourceTensor } from "./source.ts";
import { startAdapters } from "./start.ts";
import { mapWeights } from "./mapped.ts";
import { CHUNK, readRows } from "./rows.ts";
import { readStraight } from "./straight.ts";
import { uploadTiles } from "./tiles.ts";
import { downloadAll, uploadAll } from "./trained.ts";

/** How a model is loaded. Neither `lora` nor `full`: for inference only. */
export interface LoadOptions {
  readonly backend: Backend;
  readonly lora?: LoraOptions;
  /** Train every tensor, in f32. */
  readonly full?: boolean;
  /** What stays of each block between the passes; true: its input, "offload": the same in host memory, false: all. Default true. */
  readonly checkpoint?: boolean | "offload" | Checkpointing;
  /** Longest sequence in tokens. */
  readonly maxLength: number;
  readonly onProgress?: (bytes: number, total: number) => void;
  /** Sentences worth printing, such as a type that had to be converted. */
  readonly note?: (sentence: string) => void;
}

/** A loaded model. */
export interface Model {
  readonly source: ModelSource;
  readonly config: ModelConfig;
  readonly be: Backend;
  readonly decoder: Decoder;
  /** null when nothing is trained. */
  readonly params: Params | null;
  readonly plan: TrainPlan;
  readonly lora: LoraOptions | null;
  readonly checkpoint: Checkpointing;
  /** PiSSA's A and B as they were at the start, by parameter name: what the frozen weights lack. Else empty. */
  readonly first: ReadonlyMap<string, FloatTensor>;
  /** Frozen tensors by our names, where they lie on the device. */
  readonly weights: ReadonlyMap<string, Tensor>;
  /** Trained tensors by name, read from the device. */
  trained(): Promise<Map<string, FloatTensor>>;
  /** Sets trained tensors. @throws {FormatError} listing names that are missing, unknown or misshapen */
  setTrained(tensors: ReadonlyMap<string, FloatTensor>): void;
  close(): void;
}

/** Where each tensor will lie, before anything is allocated. */
export interface Placement {
  readonly tensor: SourceTensor;
  readonly dtype: DType;
  readonly byteOffset: number;
}

const ALIGN = 256;

/** Plans what is trained by the options. */
export function planTraining(source: ModelSource, o: Pick<LoadOptions, "lora" | "full">): TrainPlan {
  if (o.full) return planFull(source.tensors);
  return o.lora ? planLora(source.config, source.tensors, o.lora) : FROZEN;
}

/**
 * Types and offsets of the frozen tensors, and the bytes of their slab. Vectors (norms, biases) are always f32.
 */
export function placeWeights(
  source: ModelSource,
  plan: TrainPlan,
  be: Pick<Backend, "supports" | "actDtype">,
): { places: Placement[]; bytes: number } {
  return inSlab(
    plan.full ? [] : source.tensors.map((tensor) => {
      const own = usableType(tensor.stored);
      const read = plan.rewritten.has(moduleOf(tensor.hf)) ? be.actDtype : be.supports(own) ? own : "f32";
      const tiled = tensor.unrounded && read === own && be.supports("fp8_128");
      return { tensor, dtype: tiled ? "fp8_128" : tensor.shape.length > 1 ? read : "f32" };
    }),
  );
}

/** Tensors one after the other. */
function inSlab(list: readonly Omit<Placement, "byteOffset">[]): { places: Placement[]; bytes: number } {
  let at = 0;
  const places = list.map(({ tensor, dtype }) => {
    const place = { tensor, dtype, byteOffset: at };
    const bytes = byteLength({ handle: 0, byteOffset: 0, dtype, shape: tensor.shape });
    at += Math.ceil(bytes / ALIGN) * ALIGN;
    return place;
  });
  return { places, bytes: at };
}

/**
 * Loads a model. The source may be closed afterwards.
 * @throws {MemoryError} when the weights do not fit, before any is read
 * @throws {ConfigError} when the adapter's settings do not fit the model
 */
export async function loadModel(source: ModelSource, o: LoadOptions): Promise<Model> {
  const be = o.backend, plan = planTraining(source, o);
  const checkpoint = checkpointing(be, source.config.layers, o.checkpoint ?? true);
  const all = placeWeights(source, plan, be).places;
  const mapped = mapWeights(be, source.config, all.filter((p) => !plan.rewritten.has(moduleOf(p.tensor.hf))));
  const { places, bytes } = inSlab(all.filter((p) => !mapped.has(p.tensor.ours)));
  const handle = bytes > 0 ? slab(be, bytes, mapped) : 0;
  const params = plan.specs.length ? new Params(be, plan.specs) : null;
  const copied = new Map(places.map(({ tensor, dtype, byteOffset }): [string, Tensor] => {
    return [tensor.ours, { handle, byteOffset, dtype, shape: tensor.shape }];
  }));
  noteConversions(places, o.note);
  if (params) noteDropout(source, o.note);
  await upload(source, copied, params, plan, o);
  const weights = new Map([...mapped, ...copied]);
  const decoder = new Decoder({
    be,
    config: source.config,
    weights,
    params,
    moduleName: moduleNames(source),
    adapters: plan.adapters,
    checkpoint,
    maxLength: o.maxLength,
  });
  const lora = o.lora ?? null;
  const first = lora && params ? await startAdapters({ source, be, plan, params, weights, options: lora }) : new Map();
  return assemble({ source, be, decoder, params, plan, lora, weights, checkpoint, first });
}

/** Memory for what is not mapped; where there is none, what is mapped is let go of too. */
function slab(be: Backend, bytes: number, mapped: ReadonlyMap<string, Tensor>): Handle {
  try {
    return be.alloc(bytes);
  } catch (e) {
    for (const t of mapped.values()) be.free(t.handle);
    throw e;
  }
}

/** What a model is made of; the rest follows. Frozen weights lie in one slab, and where they are mapped each by itself. */
function assemble(parts: Omit<Model, "config" | "trained" | "setTrained" | "close">): Model {
  const { source, be, decoder, params, weights } = parts;
  const close = () => {
    decoder.close();
    params?.close();
    for (const handle of new Set(Array.from(weights.values(), (t) => t.handle))) be.free(handle);
  };
  const trained = () => downloadAll(be, params);
  const setTrained = (t: ReadonlyMap<string, FloatTensor>) => uploadAll(be, params, t);
  return { ...parts, config: source.config, trained, setTrained, close };
}

/** Our names to transformers' modules. */
export function moduleNames(source: ModelSource): (ours: string) => string {
  const names = new Map(source.tensors.map((t) => [t.ours, moduleOf(t.hf)]));
  return (ours) => names.get(ours) ?? (ours === "head" ? "lm_head" : ours);
}

function noteConversions(places: readonly Placement[], note?: (s: string) => void): void {
  const converted = new Map<string, number>();
  for (const { tensor, dtype } of places) {
    if (tensor.shape.length > 1 && dtype !== tensor.stored.dtype && dtype !== "fp8_128") {
      converted.set(tensor.stored.dtype, (converted.get(tensor.stored.dtype) ?? 0) + 1);
    }
  }
  for (const [type, n] of converted) {
    note?.(`${n} tensors of type ${type} are held as f32: the backend does not read ${type}`);
  }
}

/** Says which dropout transformers would apply in training by the model's config: attention's, and phi 3's on residuals. */
function noteDropout({ hf }: ModelSource, note?: (s: string) => void): void {
  for (const key of ["attention_dropout", ...(hf.model_type === "phi3" ? ["resid_pdrop"] : [])]) {
    if (!hf[key]) continue;
    note?.(
      `The model's config asks for ${key} ${
        hf[key]
      } in training: it is not applied, adapters alone have dropout here ` +
        `(lora_dropout); set it to 0 in config.json where that is meant`,
    );
  }
}

/** Streams every tensor to its place in the slab, if it has one, and to its trained copies. */
async function upload(
  source: ModelSource,
  places: ReadonlyMap<string, Tensor>,
  params: Params | null,
  plan: TrainPlan,
  o: LoadOptions,
): Promise<void> {
  const copies = new Map<string, Tensor[]>();
  for (const [name, tensor] of plan.copies) {
    copies.set(tensor, [...(copies.get(tensor) ?? []), params!.get(name)!.value]);
  }
  const total = source.tensors.reduce((n, t) => n + t.stored.bytes, 0);
  const scratch = new Uint8Array(CHUNK);
  let done = 0;
  for (const t of source.tensors) {
    const frozen = places.get(t.ours), targets = [...(frozen ? [frozen] : []), ...(copies.get(t.hf) ?? [])];
    for (const target of targets) {
      if (target.dtype === "fp8_128") {
        await uploadTiles(o.backend, t, source.config, target, scratch);
        continue;
      }
      if (readStraight(o.backend, t, source.config, target)) continue;
      for (const { from, to, values } of readRows(t, source.config, target.dtype, scratch)) {
        o.backend.upload(slice(target, from, to), values);
        await Promise.resolve();
      }
    }
    done += t.stored.bytes;
    o.onProgress?.(done, total);
  }
}
