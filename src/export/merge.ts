/**
 * The weights a trained model has: the base's, with what training changed put in, as f32 rows on demand. Nothing is held
 * but the adapter; a row is read, merged and handed on.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import type { AdapterParts, FloatTensor, LoraPair } from "../formats/adapter.ts";
import type { HfConfig, ModelConfig, ModelSource, SourceTensor } from "../models/mod.ts";
import { readRowRange } from "../models/rows.ts";

/** What training changed: an adapter's parts, or every tensor. */
export interface Changes extends AdapterParts {
  /** A full fine-tune: a tied head goes on following the embedding. */
  readonly full: boolean;
}

/** A tensor of the merged model. Rows are in transformers' order and form. */
export interface MergedTensor extends SourceTensor {
  /** False: the values are the base's own, so its bytes may be copied. */
  readonly changed: boolean;
  /** Rows that are read together: those of a head where a GGUF interleaves them, else 1. */
  readonly unit: number;
  /**
   * Rows [from, to) as f32 [rows, cols]; both are multiples of `unit`.
   * @throws {ConfigError} when a value is not finite
   */
  rows(from: number, to: number): Float32Array<ArrayBuffer>;
}

/**
 * A tensor's rows in ranges of about `elements` elements, each a multiple of the tensor's unit and, but for the last, of
 * `block` elements.
 */
export function* rowRanges(t: MergedTensor, elements: number, block = 1): Generator<readonly [number, number]> {
  const rows = t.shape[0]!, cols = t.shape[1] ?? 1;
  let unit = t.unit;
  while ((unit * cols) % block) unit += t.unit;
  const step = Math.max(unit, Math.floor(elements / cols / unit) * unit);
  for (let from = 0; from < rows; from += step) yield [from, Math.min(rows, from + step)];
}

/** The merged model. */
export interface MergedModel {
  readonly source: ModelSource;
  /** The source's, but for a head that training took apart from the embedding. */
  readonly config: ModelConfig;
  readonly hf: HfConfig;
  readonly tensors: readonly MergedTensor[];
  /** Sentences worth printing: what was merged into what. */
  readonly notes: readonly string[];
}

/** scale · b · a for rows [from, to), added to `w`. Sums in f64, one rounding. */
function addDelta(w: Float32Array, p: LoraPair, from: number, to: number): void {
  const sum = new Float64Array(p.inputs);
  for (let o = from; o < to; o++) {
    sum.fill(0);
    for (let r = 0; r < p.rank; r++) {
      const f = p.scale * p.b[o * p.rank + r]!;
      const row = p.a.subarray(r * p.inputs, (r + 1) * p.inputs);
      for (let i = 0; i < row.length; i++) sum[i]! += f * row[i]!;
    }
    const at = (o - from) * p.inputs;
    for (let i = 0; i < sum.length; i++) w[at + i]! += sum[i]!;
  }
}

/** Rows scaled to the lengths of DoRA's magnitude vector (Liu et al. 2024, eq. 5). */
function scaleToMagnitude(w: Float32Array, cols: number, magnitude: Float32Array): void {
  for (let o = 0; o < magnitude.length; o++) {
    let squares = 0;
    for (let i = o * cols; i < (o + 1) * cols; i++) squares += w[i]! * w[i]!;
    const f = magnitude[o]! / Math.sqrt(squares);
    for (let i = o * cols; i < (o + 1) * cols; i++) w[i] = w[i]! * f;
  }
}

/** scale · (b · a)ᵀ for rows [from, to) of an embedding table [V,D], a [R,V], b [D,R]. */
function addEmbeddingDelta(w: Float32Array, p: LoraPair, from: number, to: number): void {
  for (let v = from; v < to; v++) {
    const at = (v - from) * p.outputs;
    for (let d = 0; d < p.outputs; d++) {
      let sum = 0;
      for (let r = 0; r < p.rank; r++) sum += p.b[d * p.rank + r]! * p.a[r * p.inputs + v]!;
      w[at + d]! += p.scale * sum;
    }
  }
}

function checkFinite(w: Float32Array, name: string, from: number, cols: number): void {
  for (let i = 0; i < w.length; i++) {
    if (w[i]! - w[i]! !== 0) {
      throw new ConfigError(
        `Cannot export '${name}': row ${from + Math.floor(i / cols)} has the value ${w[i]} after merging`,
      );
    }
  }
}

const moduleOf = (hf: string): string => hf.replace(/\.(weight|bias)$/, "");

/** One tensor with its changes. `as` is the name changes are looked up under: a tied head's own. */
function mergeTensor(t: SourceTensor, c: ModelConfig, changes: Changes | null, as: string): MergedTensor {
  const cols = t.shape.length > 1 ? t.shape[t.shape.length - 1]! : 1;
  const whole = changes?.whole.get(as);
  const module = as.endsWith(".weight") ? moduleOf(as) : "";
  const pair = changes?.pairs.get(module);
  const table = changes?.embeddings.get(module);
  checkShapes(t, as, pair, table, whole);
  const base = (from: number, to: number): Float32Array<ArrayBuffer> =>
    whole ? whole.values.slice(from * cols, to * cols) as Float32Array<ArrayBuffer> : readRowRange(t, c, from, to);
  const rows = (from: number, to: number) => {
    const w = base(from, to);
    if (pair) addDelta(w, pair, from, to);
    if (pair?.magnitude) scaleToMagnitude(w, cols, pair.magnitude.subarray(from, to));
    if (table) addEmbeddingDelta(w, table, from, to);
    checkFinite(w, t.hf, from, cols);
    return w;
  };
  const heads = t.ggufAs === "permuteQ" ? c.heads : t.ggufAs === "permuteK" ? c.kvHeads : 0;
  const unit = heads ? t.shape[0]! / heads : 1;
  return { ...t, changed: Boolean(pair || table || whole), unit, rows };
}

function checkShapes(t: SourceTensor, as: string, pair?: LoraPair, table?: LoraPair, whole?: FloatTensor): void {
  const wish = t.shape.join();
  const found = [
    ...(pair ? [`${pair.outputs},${pair.inputs}`] : []),
    ...(table ? [`${table.inputs},${table.outputs}`] : []),
    ...(whole ? [whole.shape.join()] : []),
  ];
  const odd = found.find((shape) => shape !== wish);
  if (odd) throw new ConfigError(`Cannot merge into '${as}': it is [${wish}] and the trained part is for [${odd}]`);
}

/** Whether a tied head has come to differ from the embedding, as in peft (see nn/decoder.ts). */
function headParted(c: ModelConfig, changes: Changes | null): boolean {
  if (!c.tied || !changes) return false;
  const trained = changes.pairs.has("lm_head") || changes.whole.has("lm_head.weight");
  const embedding = changes.whole.has("model.embed_tokens.weight") || changes.embeddings.size > 0;
  return trained || (embedding && !changes.full);
}

function refuseUnknown(changes: Changes, known: ReadonlySet<string>): void {
  const modules = [...changes.pairs.keys(), ...changes.embeddings.keys()].map((m) => `${m}.weight`);
  const lost = [...modules, ...changes.whole.keys()].filter((name) => !known.has(name));
  if (lost.length) {
    throw new ConfigError(`Cannot merge the adapter: the model has no ${lost.map((n) => `'${n}'`).join(", ")}`);
  }
}

/**
 * The model with its changes. The source must stay open while rows are read.
 * @throws {ConfigError} when a changed tensor is not the model's or has another shape
 */
export function mergeModel(source: ModelSource, changes: Changes | null): MergedModel {
  const parted = headParted(source.config, changes);
  const hf = parted ? { ...source.hf, tie_word_embeddings: false } : source.hf;
  const config = parted ? { ...source.config, tied: false } : source.config;
  const tensors = source.tensors.map((t) => mergeTensor(t, source.config, changes, t.hf));
  const embed = source.tensors.find((t) => t.ours === "embed")!;
  if (parted) {
    const head = mergeTensor(embed, source.config, changes, "lm_head.weight");
    tensors.push({ ...head, ours: "head", hf: "lm_head.weight", gguf: "output.weight" });
  }
  if (changes) refuseUnknown(changes, new Set(tensors.map((t) => t.hf)));
  return { source, config, hf, tensors, notes: notesOf(source, changes, tensors, parted) };
}

function notesOf(source: ModelSource, changes: Changes | null, tensors: MergedTensor[], parted: boolean): string[] {
  const notes: string[] = [];
  const changed = tensors.filter((t) => t.changed);
  const types = [...new Set(changed.map((t) => t.stored.dtype))];
  const quantised = types.filter((d) => !["f32", "f16", "bf16"].includes(d));
  if (changes) notes.push(`Merging ${changed.length} of ${tensors.length} tensors in f32 into ${source.path}`);
  if (quantised.length && !changes?.full) {
    notes.push(
      `The base is ${quantised.join(", ")}, what was trained on: merging keeps its rounding; ` +
        `the original 16-bit weights, if you have them, give a better file`,
    );
  }
  if (parted) {
    notes.push("The head was tied to the embedding and has been trained apart: it is written as a tensor of its own");
  }
  return notes;
}
