/**
 * Export: a trained model in the forms others read. Everything written is loaded again and compared with the trained
 * model before it gets its name.
 * @module
 */
import { existsSync, mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { Backend } from "../core/backend.ts";
import type { BlockCodec } from "../core/block_codec.ts";
import { ConfigError } from "../core/errors.ts";
import { adaptedModules, type Adapter, adapterParts, type FloatTensor } from "../formats/adapter.ts";
import { openGguf } from "../formats/gguf_read.ts";
import { writeMlx } from "../formats/mlx.ts";
import { writePeft } from "../formats/peft.ts";
import { loadModel, type Model, type ModelSource, readAdapter, writeAdapter } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import { compareNf4 } from "./bitsandbytes.ts";
import { type Importance, writeModelGguf } from "./gguf.ts";
import { writeModelFolder } from "./hugging_face.ts";
import { writeLoraGguf } from "./lora_gguf.ts";
import { type Changes, type MergedModel, mergeModel } from "./merge.ts";
import { modelfileOf } from "./ollama.ts";
import { parseQuantization, type Quantization } from "./quantization.ts";
import { type Reference, takeReference, type Verification, verifyModel } from "./verify.ts";

export { parseQuantization, type Quantization, QUANTIZATIONS } from "./quantization.ts";
export type { Importance } from "./gguf.ts";
export {
  type CalibrationOptions,
  collectImportance,
  type ImportanceMatrix,
  importanceOf,
  readImportance,
  writeImportance,
} from "./importance.ts";
export type { Verification } from "./verify.ts";

/** Forms of export. */
export const EXPORT_FORMATS = ["gguf", "merged_16bit", "merged_4bit", "lora", "lora_gguf", "mlx"] as const;
/** A form of export. */
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** What training made: an adapter, every tensor of a full fine-tune by transformers' name, or nothing. */
export type Trained =
  | { readonly kind: "adapter"; readonly adapter: Adapter }
  | { readonly kind: "full"; readonly tensors: ReadonlyMap<string, FloatTensor> }
  | { readonly kind: "none" };

/** What to compare the written files with, and where. */
export interface VerifyOptions {
  /** Where written files are loaded; its memory must hold one of them besides what is on it already. */
  readonly backend: Backend;
  /** The trained model where it is still loaded; else the source with the adapter is loaded and closed again. */
  readonly model?: Model;
}

/** An export. */
export interface ExportOptions {
  /** The weights training changed, opened; the original 16-bit ones where they exist. */
  readonly source: ModelSource;
  readonly trained: Trained;
  /** The model's, perhaps with the template used in training; null only for models without one, which only `lora` takes. */
  readonly tokenizer: Tokenizer | null;
  readonly formats: readonly ExportFormat[];
  /** Types of GGUF, one file each. */
  readonly quantization: readonly string[];
  /** Made if need be. */
  readonly outDir: string;
  /** Stem of file names. Default: the source's name. */
  readonly name?: string;
  /** Opened when a GGUF is written, and closed again. */
  readonly openCodec?: () => Promise<BlockCodec>;
  readonly importance?: Importance;
  /** null: do not compare. */
  readonly verify: VerifyOptions | null;
  /** Gets sentences worth printing. */
  readonly log?: (sentence: string) => void;
  readonly onProgress?: (what: string, done: number, total: number) => void;
}

/** What was written. */
export interface ExportedFile {
  readonly format: ExportFormat;
  /** A file, or a folder. */
  readonly path: string;
  readonly quantization: Quantization | null;
  readonly bytes: number;
  /** null where nothing was compared. */
  readonly verification: Verification | null;
}

/** The trained part of a loaded model. */
export async function trainedPart(model: Model): Promise<Trained> {
  if (!model.params) return { kind: "none" };
  if (model.lora) return { kind: "adapter", adapter: await readAdapter(model) };
  return { kind: "full", tensors: await model.trained() };
}

function changesOf(trained: Trained): Changes | null {
  if (trained.kind === "none") return null;
  if (trained.kind === "adapter") return { ...adapterParts(trained.adapter), full: false };
  return { pairs: new Map(), embeddings: new Map(), whole: trained.tensors, full: true };
}

/** The source's name without path, ending and type. */
export function stemOf(source: ModelSource): string {
  return basename(resolve(source.path)).replace(/\.gguf$/, "").replace(/[-._](I?Q\d\w*|B?F16|F32)$/i, "");
}

/** Where a GGUF of a type goes. */
export function ggufPath(dir: string, stem: string, quantization: Quantization): string {
  return join(dir, `${stem}.${quantization.toUpperCase()}.gguf`);
}

/**
 * Writes a model in every form asked for, and compares what can be compared.
 * @returns what was written, in the order of the formats
 * @throws {ConfigError} for what a form cannot express, and when a written file answers otherwise than the trained
 *   model: then the file is kept with the ending .refused
 */
export async function exportModel(options: ExportOptions): Promise<ExportedFile[]> {
  const quantizations = [...new Set(options.quantization.map(parseQuantization))];
  const o = { ...options, quantization: quantizations };
  const changes = changesOf(o.trained);
  const model = mergeModel(o.source, changes);
  mkdirSync(o.outDir, { recursive: true });
  if (o.formats.some((f) => f === "gguf" || f.startsWith("merged"))) model.notes.forEach((n) => o.log?.(n));
  const reference = o.formats.some((f) => f === "gguf" || f === "merged_16bit") && o.verify
    ? await referenceOf(o)
    : null;
  const out: ExportedFile[] = [];
  for (const format of o.formats) {
    if (format === "gguf") { for (const q of quantizations) out.push(await exportGguf(o, model, q, reference)); }
    else if (format === "merged_16bit") out.push(await exportFolder(o, model, reference));
    else if (format === "merged_4bit") out.push(await exportNf4(o, model));
    else out.push(await exportAdapter(o, format));
  }
  return out;
}

/** The trained model's answers, from the loaded model or from one loaded for this. */
async function referenceOf(o: ExportOptions): Promise<Reference> {
  const { backend, model } = o.verify!;
  if (model) return await takeReference(model, o.tokenizer);
  if (o.trained.kind === "full") {
    throw new ConfigError("Cannot compare a full fine-tune without the loaded model: give it, or switch verify off");
  }
  const adapter = o.trained.kind === "adapter" ? o.trained.adapter : null;
  const loaded = await loadWithAdapter(o.source, adapter, backend);
  try {
    return await takeReference(loaded, o.tokenizer);
  } finally {
    loaded.close();
  }
}

async function loadWithAdapter(source: ModelSource, adapter: Adapter | null, backend: Backend): Promise<Model> {
  const maxLength = Math.min(source.config.maxPos, 512);
  if (!adapter) return await loadModel(source, { backend, maxLength });
  const lora = { ...adapter.settings, targetModules: adaptedModules(adapter.tensors) };
  const model = await loadModel(source, { backend, maxLength, lora });
  writeAdapter(model, adapter);
  return model;
}

/** Folder of a format: outDir, or one of its own in there where files of two formats have the same names. */
function folderOf(o: ExportOptions, format: ExportFormat): string {
  if (format === "lora_gguf") return o.outDir;
  const folders = o.formats.filter((f) => f !== "gguf" && f !== "lora_gguf");
  return folders.length > 1 ? join(o.outDir, format) : o.outDir;
}

function needTokenizer(o: ExportOptions): Tokenizer {
  if (o.tokenizer) return o.tokenizer;
  throw new ConfigError(`Cannot export a whole model without a tokenizer: '${o.source.path}' has none`);
}

async function exportGguf(
  o: ExportOptions,
  model: MergedModel,
  quantization: Quantization,
  reference: Reference | null,
): Promise<ExportedFile> {
  const path = ggufPath(o.outDir, o.name ?? stemOf(o.source), quantization);
  if (existsSync(path) && resolve(path) === resolve(o.source.path)) {
    throw new ConfigError(`Cannot write '${path}': it is the model being exported; choose another folder or name`);
  }
  const tokenizer = needTokenizer(o);
  const codec = await o.openCodec?.() ?? null;
  try {
    const onProgress = (done: number, total: number) => o.onProgress?.(path, done, total);
    const baseModel = o.trained.kind === "adapter" ? o.trained.adapter.settings.baseModel : null;
    const named = o.name ? { name: o.name } : {};
    const { importance } = o;
    await writeModelGguf(path, model, { quantization, tokenizer, codec, importance, onProgress, baseModel, ...named });
  } finally {
    codec?.close();
  }
  const bytes = statSync(path).size;
  o.log?.(`Wrote ${path} (${megabytes(bytes)})`);
  const verification = reference ? await check(o, path, [path], reference, quantization) : null;
  writeModelfile(o, path, quantization, tokenizer);
  return { format: "gguf", path, quantization, bytes, verification };
}

/** Beside the GGUF: Modelfile, or Modelfile.Q8_0 where several types are written. */
function writeModelfile(o: ExportOptions, gguf: string, q: Quantization, tokenizer: Tokenizer): void {
  const file = openGguf(gguf);
  const modelfile = modelfileOf(basename(gguf), tokenizer, file.meta);
  file.close();
  const path = join(o.outDir, o.quantization.length > 1 ? `Modelfile.${q.toUpperCase()}` : "Modelfile");
  writeFileSync(path, modelfile.text);
  o.log?.(
    modelfile.template || !tokenizer.template
      ? `Wrote ${path} for Ollama`
      : `Wrote ${path} for Ollama without a TEMPLATE, which Go templates cannot express; Ollama goes by the GGUF's own`,
  );
}

function refuseOwnFolder(o: ExportOptions, path: string): void {
  if (resolve(path) !== resolve(o.source.path)) return;
  throw new ConfigError(`Cannot write into '${path}': it is the model being exported; choose another folder`);
}

async function exportFolder(o: ExportOptions, model: MergedModel, reference: Reference | null): Promise<ExportedFile> {
  const path = folderOf(o, "merged_16bit");
  refuseOwnFolder(o, path);
  const onProgress = (done: number, total: number) => o.onProgress?.(path, done, total);
  const names = await writeModelFolder(path, model, { tokenizer: needTokenizer(o), onProgress });
  const bytes = names.reduce((n, name) => n + statSync(join(path, name)).size, 0);
  o.log?.(`Wrote ${path} (${names.join(", ")}, ${megabytes(bytes)})`);
  const weights = names.map((name) => join(path, name));
  const verification = reference ? await check(o, path, weights, reference, "bf16") : null;
  return { format: "merged_16bit", path, quantization: null, bytes, verification };
}

/** No backend of ours loads bitsandbytes' layout, so the weights are read back and compared one by one. */
async function exportNf4(o: ExportOptions, model: MergedModel): Promise<ExportedFile> {
  const path = folderOf(o, "merged_4bit");
  refuseOwnFolder(o, path);
  const onProgress = (done: number, total: number) => o.onProgress?.(path, done, total);
  const names = await writeModelFolder(path, model, { tokenizer: needTokenizer(o), dtype: "nf4", onProgress });
  const bytes = names.reduce((n, name) => n + statSync(join(path, name)).size, 0);
  o.log?.(`Wrote ${path} (${names.join(", ")}, ${megabytes(bytes)})`);
  if (o.verify) {
    o.log?.(`Compared with the merged weights: relative error ${(100 * compareNf4(path, model)).toFixed(1)} %`);
  }
  return { format: "merged_4bit", path, quantization: null, bytes, verification: null };
}

async function exportAdapter(o: ExportOptions, format: "lora" | "lora_gguf" | "mlx"): Promise<ExportedFile> {
  if (o.trained.kind !== "adapter") {
    throw new ConfigError(`Cannot export '${format}': there is no adapter, the whole model was trained`);
  }
  const { adapter } = o.trained;
  let path = folderOf(o, format);
  mkdirSync(path, { recursive: true });
  if (format === "lora") await writePeft(path, adapter);
  else if (format === "mlx") await writeMlx(path, adapter, o.source.config.layers);
  else {
    path = join(o.outDir, `${o.name ?? stemOf(o.source)}-lora.gguf`);
    await writeLoraGguf(path, adapter, o.source);
  }
  const file = format === "lora_gguf"
    ? path
    : join(path, format === "mlx" ? "adapters.safetensors" : "adapter_model.safetensors");
  const bytes = statSync(file).size;
  o.log?.(`Wrote ${file} (${megabytes(bytes)})`);
  return { format, path, quantization: null, bytes, verification: null };
}

/** Compares, prints the figures, and takes the name from files that are off. */
async function check(
  o: ExportOptions,
  path: string,
  files: readonly string[],
  reference: Reference,
  q: Quantization,
): Promise<Verification> {
  const v = await verifyModel(path, reference, q, o.verify!.backend, o.tokenizer !== null);
  o.log?.(describe(v));
  if (v.refused === null) return v;
  for (const file of files) renameSync(file, `${file}.refused`);
  throw new ConfigError(`Cannot accept '${path}': ${v.refused}; it is kept with the ending .refused`);
}

/** The figures in one line. */
export function describe(v: Verification): string {
  const ends = v.ends?.trained
    ? `; its answer ${v.ends.written ? "ends" : "does not end"} as the trained model's does`
    : "";
  return `Compared with the trained model at ${v.positions} positions: KL mean ${v.meanKl.toExponential(2)}, ` +
    `max ${v.maxKl.toExponential(2)}; likeliest token the same at ${(100 * v.topAgreement).toFixed(1)} %${ends}`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
