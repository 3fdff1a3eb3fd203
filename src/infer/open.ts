/** From files on disk to an engine in this thread: model, adapter, tokenizer, cache. @module */
import { basename } from "node:path";
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { adaptedModules, type Adapter } from "../formats/adapter.ts";
import { isMlxAdapter, readMlx } from "../formats/mlx.ts";
import { readPeft } from "../formats/peft.ts";
import { loadModel, type LoraOptions, type Model, openModel, writeAdapter } from "../models/mod.ts";
import { loadTokenizer, withTemplate } from "../tokenizer/mod.ts";
import { createEngine } from "./engine.ts";
import { DecoderRunner } from "./runner.ts";
import type { Engine } from "./types.ts";

/** What to serve and how much at once. All of it can be sent to a worker. */
export interface EngineOptions {
  /** A Hugging Face folder, or a .gguf file. */
  modelPath: string;
  /** A folder with a PEFT or mlx-lm adapter. */
  adapterPath?: string;
  /** The name clients see. Default: the model's file or folder name. */
  name?: string;
  /** Longest prompt with its answer, in tokens. Default: what the model was trained for, at most 2,048. */
  contextLength?: number;
  /** Requests answered at once. Default 4. */
  slots?: number;
  /** Requests that may wait. Default 64. */
  waiting?: number;
  /** Tokens computed in one step. Default 128 on CPU backends, 2,048 on GPUs. */
  stepTokens?: number;
  /** "chatml", or the Jinja source of a chat template, instead of the model's own. */
  template?: string;
}

/** Where an engine computes, and whom it tells what it is doing. */
export interface EngineContext {
  /** Makes the backend; the engine closes it. */
  openBackend(): Promise<Backend>;
  /** Gets sentences worth printing. */
  note?(sentence: string): void;
  onProgress?(bytes: number, total: number): void;
  /** Called before each step of generation. */
  poll?(): void;
}

/** What options leave open. */
export const DEFAULTS = { slots: 4, waiting: 64, contextLength: 2048 };

/**
 * Loads a model for answering in this thread.
 * @throws {ConfigError | FormatError | MemoryError} what is wrong with files or sizes
 * @example
 * ```ts
 * const engine = await openEngine({ modelPath: "model-q8_0.gguf" }, { openBackend: () => createWasmBackend() });
 * ```
 */
export async function openEngine(o: EngineOptions, context: EngineContext): Promise<Engine> {
  const tokenizer = openTokenizer(o), be = await context.openBackend();
  let model: Model | null = null;
  try {
    const source = openModel(o.modelPath);
    const contextLength = o.contextLength ?? Math.min(source.config.maxPos, DEFAULTS.contextLength);
    checkSizes({ ...o, contextLength });
    try {
      const { note, onProgress } = context;
      const adapter = o.adapterPath === undefined ? null : readAdapter(o.adapterPath);
      const lora = adapter ? toLora(adapter) : undefined;
      model = await loadModel(source, { backend: be, maxLength: contextLength, lora, note, onProgress });
      if (adapter) writeAdapter(model, adapter);
    } finally {
      source.close();
    }
    if (contextLength > source.config.maxPos) {
      context.note?.(
        `The context of ${contextLength} tokens is longer than the ${source.config.maxPos} the model knows`,
      );
    }
    const gpu = be.name === "cuda" || be.name === "metal";
    const slots = o.slots ?? DEFAULTS.slots;
    const runner = new DecoderRunner(model, { slots, contextLength, stepTokens: o.stepTokens ?? (gpu ? 2048 : 128) });
    const engine = createEngine({
      model: o.name ?? basename(o.modelPath).replace(/\.gguf$/, ""),
      tokenizer,
      runner,
      eos: source.config.eos,
      waiting: o.waiting ?? DEFAULTS.waiting,
      poll: context.poll,
    });
    return closingWith(engine, model, be);
  } catch (e) {
    model?.close();
    be.close();
    throw e;
  }
}

/** The tokenizer of the options' model. */
export function openTokenizer(o: EngineOptions): ReturnType<typeof loadTokenizer> {
  const tokenizer = loadTokenizer(o.modelPath);
  return o.template === undefined ? tokenizer : withTemplate(tokenizer, o.template);
}

function readAdapter(path: string): Adapter {
  return isMlxAdapter(path) ? readMlx(path) : readPeft(path);
}

/** The adapter's settings, its targets being the modules it has, whatever pattern once chose them. */
function toLora({ settings, tensors }: Adapter): LoraOptions {
  return { ...settings, targetModules: adaptedModules(tensors) };
}

function checkSizes(o: EngineOptions & { contextLength: number }): void {
  const sizes = { slots: o.slots, contextLength: o.contextLength, stepTokens: o.stepTokens };
  for (const [name, n] of Object.entries(sizes)) {
    if (n === undefined || (Number.isInteger(n) && n >= (name === "contextLength" ? 2 : 1))) continue;
    throw new ConfigError(`Cannot serve with ${name} ${n}: it must be a positive integer`);
  }
  if (o.waiting !== undefined && !(Number.isInteger(o.waiting) && o.waiting >= 0)) {
    throw new ConfigError(`Cannot serve with ${o.waiting} waiting requests: it must be an integer from 0`);
  }
}

function closingWith(engine: Engine, model: Model, be: Backend): Engine {
  const close = async () => {
    await engine.close();
    model.close();
    be.close();
  };
  return { ...engine, close };
}
