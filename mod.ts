#!/usr/bin/env bun
/**
 * Fine-tune a language model and serve it, from TypeScript. As a library: `loadPretrained`, `trainModel`, `saveGguf` and
 * what they take and give; run as a program: the command line (`train`, `chat`, `serve`, `export`, `inspect`, `doctor`).
 * This is the only place that names the backends.
 *
 * @example
 * ```ts
 * const model = await loadPretrained("org/model", { r: 16 });
 * await trainModel(model, "alpaca.jsonl", { maxSteps: 60 });
 * await saveGguf(model, "out", { quantization: ["q8_0"] });
 * model.close();
 * ```
 * @module
 */
import { existsSync } from "node:fs";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { type Candidate, selectBackend } from "./ffi/select.ts";
import type { Backend, MemoryInfo } from "./src/core/backend.ts";
import { EMBEDDED, embeddedFile } from "./src/cli/assets.ts";
import { checkOptions, LOAD_OPTIONS, TRAIN_OPTIONS } from "./src/cli/library_options.ts";
import { ConfigError } from "./src/core/errors.ts";
import { describeCounts, digestRows, openDataset, prepare, type PrepareOptions } from "./src/data/mod.ts";
import { type ExportedFile, type ExportFormat, exportModel, trainedPart } from "./src/export/mod.ts";
import { downloadDataset, downloadModel, type HubOptions, isDatasetId, isHubId } from "./src/hub/mod.ts";
import { createEngine } from "./src/infer/engine.ts";
import { DecoderRunner } from "./src/infer/runner.ts";
import { PLAIN } from "./src/infer/sample.ts";
import type { Engine, SampleOptions } from "./src/infer/types.ts";
import { blockLinears, loadModel, type Model, type ModelSource, openModel } from "./src/models/mod.ts";
import { loadTokenizer, type Message, type Tokenizer } from "./src/tokenizer/mod.ts";
import { type OptimOptions, train, type TrainEvent, type TrainResult } from "./src/train/mod.ts";
import { openBlockCodec } from "./wasm/blocks.ts";
import { candidate as cuda } from "./cuda/mod.ts";
import { candidate as metal } from "./metal/mod.ts";
import { candidate as wasm } from "./wasm/mod.ts";

export type { Candidate } from "./ffi/select.ts";
export type { Backend, MemoryInfo } from "./src/core/backend.ts";
export { BackendError, ConfigError, DataError, FormatError, MemoryError, ShapeError } from "./src/core/errors.ts";
export type { ExportedFile } from "./src/export/mod.ts";
export type { Engine } from "./src/infer/types.ts";
export type { Message, Tokenizer } from "./src/tokenizer/mod.ts";
export type { TrainEvent, TrainResult } from "./src/train/mod.ts";
export { createApp, serve } from "./server/app.ts";

/** Version of this package. */
export const VERSION = "0.1.0";

/** Backends in the order in which `auto` tries them. */
export const BACKENDS: readonly Candidate[] = [cuda, metal, wasm];

/** How a model is loaded. */
export interface LoadPretrainedOptions extends HubOptions {
  /** "auto" (default), or a backend's name. */
  backend?: string;
  /** Threads of the wasm backend. */
  threads?: number;
  /** Most bytes of device memory to use (mx.set_memory_limit). Default: all there is. */
  memoryLimit?: number;
  /** Longest sequence in tokens. Default: the model's own, at most 2,048. */
  maxSeqLength?: number;
  /** Rank of the adapters. Default 16. */
  r?: number;
  /** Default 16; the scale is alpha / r. */
  loraAlpha?: number;
  loraDropout?: number;
  useRslora?: boolean;
  useDora?: boolean;
  /** Endings of module names, or a regular expression of whole names. Default: every linear of a block, "all-linear". */
  targetModules?: readonly string[] | string;
  /** Seed of the adapters' start. Default 3407. */
  randomState?: number;
  /** true: keep only the blocks' inputs and recompute; "offload": keep those in host memory. Default false. */
  gradientCheckpointing?: boolean | "offload";
  /** Gets sentences worth printing. */
  log?: (sentence: string) => void;
}

/** A loaded model with fresh adapters: it computes as its base until it is trained. */
export interface LanguageModel {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly backend: Backend;
  readonly maxSeqLength: number;
  /** The rooms beneath, for what this interface does not offer. */
  readonly model: Model;
  readonly source: ModelSource;
  /** Bytes on the device: now in use, most since the last reset, kept but unused, what may be used. */
  memory(): Required<MemoryInfo>;
  /** From now on the peak counts from what is in use now. */
  resetPeakMemory(): void;
  /** Gives unused bytes back to the system; how many (0 on wasm, whose memory never shrinks). */
  clearCache(): number;
  close(): void;
}

/**
 * Loads a model: a Hub id, a folder, a .gguf file, or "embedded".
 * @throws {ConfigError | FormatError | MemoryError} what is wrong with the name, the files or the size
 */
export async function loadPretrained(name: string, o: LoadPretrainedOptions = {}): Promise<LanguageModel> {
  checkOptions(o, LOAD_OPTIONS);
  const path = await locate(name, EMBEDDED.model, () => downloadModel(name, o));
  const source = openModel(path), tokenizer = loadTokenizer(path), { config } = source;
  const { log = () => {}, threads, memoryLimit } = o;
  const backend = await selectBackend({
    ...{ backend: o.backend ?? "auto", candidates: BACKENDS, log },
    ...(threads === undefined ? {} : { threads }),
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
  });
  try {
    const maxSeqLength = o.maxSeqLength ?? Math.min(config.maxPos, 2048);
    const lora = {
      ...{ r: o.r ?? 16, alpha: o.loraAlpha ?? 16, dropout: o.loraDropout ?? 0 },
      ...{ rslora: o.useRslora ?? false, dora: o.useDora ?? false, bias: "none" as const, baseModel: name },
      ...{ targetModules: o.targetModules ?? blockLinears(config), rankPattern: {}, alphaPattern: {} },
      ...{ modulesToSave: [], seed: o.randomState ?? 3407 },
    };
    const checkpoint = o.gradientCheckpointing ?? false;
    const model = await loadModel(source, { backend, lora, checkpoint, maxLength: maxSeqLength, note: log });
    const close = () => {
      model.close();
      source.close();
      backend.close();
    };
    return { name, tokenizer, backend, maxSeqLength, model, source, ...memoryCalls(backend), close };
  } catch (e) {
    source.close();
    backend.close();
    throw e;
  }
}

/** What mx.get_peak_memory, reset_peak_memory and clear_cache are to MLX's users. */
function memoryCalls(be: Backend): Pick<LanguageModel, "memory" | "resetPeakMemory" | "clearCache"> {
  return {
    memory: () => ({ cached: 0, ...be.memory() }),
    resetPeakMemory: () => be.resetPeak?.(),
    clearCache: () => be.clearCache?.() ?? 0,
  };
}

/** A path as it is, "embedded" as this package's own file, anything else from the Hub. */
async function locate(
  name: string,
  embedded: string,
  download: () => Promise<string>,
  isId = isHubId,
): Promise<string> {
  if (existsSync(name)) return name;
  if (name === "embedded") return await embeddedFile(new URL("./", import.meta.url), embedded);
  return isId(name) ? await download() : name;
}

/** How a model is trained; defaults are unsloth-cli.py's, the loss is on the answers only. */
export interface TrainModelOptions {
  /** Optimiser steps. Default 400. */
  maxSteps?: number;
  batchSize?: number;
  gradientAccumulation?: number;
  learningRate?: number;
  warmupSteps?: number;
  schedule?: OptimOptions["schedule"];
  optim?: string;
  weightDecay?: number;
  maxGradNorm?: number;
  seed?: number;
  /** Lay rows end to end up to the longest sequence. */
  packing?: boolean;
  trainOn?: PrepareOptions["trainOn"];
  /** Makes a record of yours into one of a known format; then the dataset is an array. */
  format?: (record: Record<string, unknown>) => Record<string, unknown>;
  /** Held-out records, evaluated before, every `evalSteps` and after. */
  heldOut?: string | readonly Record<string, unknown>[];
  evalSteps?: number;
  /** Evaluations without a better loss after which to stop. */
  patience?: number;
  /** Folder of metrics and checkpoints. Default "outputs". */
  outputDir?: string;
  saveSteps?: number;
  resume?: boolean;
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
  /** Gets sentences about the data: what was recognised, what is probably not meant. */
  log?: (sentence: string) => void;
}

/**
 * Trains the adapters on a file, a folder, a Hub dataset, or records in memory.
 * @throws {DataError} when nothing can be trained on it, or a loss is not finite; {ConfigError} for an option that cannot act
 */
export async function trainModel(
  m: LanguageModel,
  data: string | readonly Record<string, unknown>[],
  o: TrainModelOptions = {},
): Promise<TrainResult> {
  checkOptions(o, TRAIN_OPTIONS);
  if ((o.evalSteps || o.patience) && !o.heldOut) {
    throw new ConfigError(`Cannot use ${o.evalSteps ? "evalSteps" : "patience"}: it acts only with heldOut`);
  }
  if (o.patience && !o.evalSteps) throw new ConfigError("Cannot use patience: it acts only with evalSteps");
  const rows = await rowsOf(m, data, o), heldOut = o.heldOut ? await rowsOf(m, o.heldOut, o) : null;
  const seed = o.seed ?? 3407,
    feed = {
      ...{ batchSize: o.batchSize ?? 2, accumulation: o.gradientAccumulation ?? 4, seed },
      packTo: o.packing ? m.maxSeqLength : null,
    };
  const optim: OptimOptions = {
    ...{ name: o.optim ?? "adamw_8bit", lr: o.learningRate ?? 2e-4, betas: [0.9, 0.999], eps: 1e-8 },
    ...{ weightDecay: o.weightDecay ?? 0.01, maxGradNorm: o.maxGradNorm ?? 1, schedule: o.schedule ?? "linear" },
    ...{ warmupSteps: o.warmupSteps ?? 5, totalSteps: o.maxSteps ?? 400 },
  };
  const settings = { model: m.name, feed, optim, rows: rows.length, data: digestRows(rows) };
  try {
    return await train({
      ...{ model: m.model, rows, heldOut, feed, optim, smoothing: 0, evalBatchSize: 4, evalEvery: o.evalSteps ?? 0 },
      ...{
        patience: o.patience ?? 0,
        logEvery: 1,
        dir: o.outputDir ?? "outputs",
        saveEvery: o.saveSteps ?? 0,
        keep: 2,
      },
      ...{ resume: o.resume ?? false, tensorboard: false, settings },
      ...(o.signal ? { signal: o.signal } : {}),
      ...(o.onEvent ? { on: o.onEvent } : {}),
    });
  } finally {
    rows.close();
    heldOut?.close();
  }
}

async function rowsOf(m: LanguageModel, data: string | readonly Record<string, unknown>[], o: TrainModelOptions) {
  const path = typeof data === "string"
    ? await locate(data, EMBEDDED.data, () => downloadDataset(data), isDatasetId)
    : data;
  const records = typeof path !== "string" && o.format ? path.map(o.format) : path;
  const options: PrepareOptions = { maxLength: m.maxSeqLength, vocab: m.source.config.vocab };
  const trainOn = o.trainOn ? { trainOn: o.trainOn } : {};
  const dataset = await openDataset(records);
  const { rows, counts, notes } = await prepare(dataset, m.tokenizer, { ...options, ...trainOn });
  for (const note of [...dataset.notes, ...notes, ...describeCounts(counts)]) o.log?.(note);
  return rows;
}

/** Writes the merged model as GGUF, one file a type, each compared with the trained model. */
export function saveGguf(
  m: LanguageModel,
  dir: string,
  o: { quantization?: readonly string[]; log?: (sentence: string) => void } = {},
): Promise<ExportedFile[]> {
  const { quantization = ["q8_0"] } = o;
  if (quantization.length === 0) {
    return Promise.reject(new ConfigError("Cannot save a GGUF: quantization names no type"));
  }
  return save(m, dir, ["gguf"], quantization, o.log);
}

/** Writes the adapter in PEFT's format, or with `method` the merged model as a Hugging Face folder. */
export function saveModel(
  m: LanguageModel,
  dir: string,
  method: Exclude<ExportFormat, "gguf"> = "lora",
): Promise<ExportedFile[]> {
  return save(m, dir, [method], []);
}

async function save(
  m: LanguageModel,
  outDir: string,
  formats: readonly ExportFormat[],
  quantization: readonly string[],
  log: (sentence: string) => void = () => {},
): Promise<ExportedFile[]> {
  const { source, tokenizer, model, backend } = m, trained = await trainedPart(model);
  const verify = { backend, model };
  return await exportModel({
    ...{ source, tokenizer, trained, formats, quantization, outDir, verify, openCodec: openBlockCodec, log },
  });
}

/** An engine over the model as it is now trained, for `createApp` or for asking it directly. Close it before the model. */
export function engineOf(m: LanguageModel, o: { slots?: number; contextLength?: number } = {}): Engine {
  const contextLength = o.contextLength ?? m.maxSeqLength;
  const runner = new DecoderRunner(m.model, { slots: o.slots ?? 1, contextLength, stepTokens: 128 });
  return createEngine({ model: m.name, tokenizer: m.tokenizer, runner, eos: m.source.config.eos, waiting: 64 });
}

/** The model's answer to a question or a conversation; greedy unless told otherwise. */
export async function ask(
  m: LanguageModel,
  question: string | readonly Message[],
  o: Partial<SampleOptions> & { maxTokens?: number } = {},
): Promise<string> {
  const { maxTokens = 256, ...sampling } = o, engine = engineOf(m);
  try {
    const ids = engine.prompt(typeof question === "string" ? [{ role: "user", content: question }] : question);
    const room = Math.max(1, Math.min(maxTokens, engine.contextLength - ids.length));
    const sample = { ...PLAIN, temperature: 0, ...sampling };
    let text = "";
    for await (const p of engine.generate({ ids, maxTokens: room, stop: [], sample, logprobs: null })) text += p.text;
    return text.trim();
  } finally {
    await engine.close();
  }
}

/** How this program is called where it runs, for the commands it proposes. */
function programName(): string {
  const here = import.meta.url === new URL("mod.ts", pathToFileURL(`${process.cwd()}/`)).href;
  const { deno, bun } = process.versions as Record<string, string | undefined>;
  if (bun) return "bun x unsloth";
  if (deno) return `deno run -A ${here ? "mod.ts" : import.meta.url.replace(/^https:.*/, "jsr:@unsloth/unsloth")}`;
  return here ? "node mod.ts" : "unsloth";
}

if (import.meta.main) {
  const { runCli } = await import("./src/cli/mod.ts");
  process.exitCode = await runCli({
    argv: process.argv.slice(2),
    candidates: BACKENDS,
    openCodec: openBlockCodec,
    packageUrl: new URL("./", import.meta.url),
    version: VERSION,
    program: programName(),
  });
}
