/** What will be written at the end: checked before the beginning, then written, compared and pushed. @module */
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import {
  collectImportance,
  type ExportedFile,
  type ExportFormat,
  exportModel,
  ggufPath,
  type Importance,
  importanceOf,
  parseQuantization,
  readImportance,
  stemOf,
  type Trained,
  writeImportance,
} from "../export/mod.ts";
import { ConfigError } from "../core/errors.ts";
import { ggufMetaOf } from "../export/gguf_meta.ts";
import { checkModelFolder } from "../export/hugging_face.ts";
import { mergeModel } from "../export/merge.ts";
import type { Backend } from "../core/backend.ts";
import { uploadFolder } from "../hub/mod.ts";
import type { Model, ModelSource } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { bytesText } from "./terminal.ts";

/** The forms the settings ask train for. */
export function trainFormats(config: Config): ExportFormat[] {
  const saved: ExportFormat[] = config.save_model ? [config.save_method] : [];
  return config.save_gguf ? [...saved, "gguf"] : saved;
}

/**
 * Makes once all that a file holds besides weights, which meets every name, architecture and tokenizer it cannot express,
 * and looks at what the export reads and where it writes.
 * @throws {ConfigError | FormatError} for what would only fail after training
 */
export function checkExport(
  source: ModelSource,
  tokenizer: Tokenizer,
  formats: readonly ExportFormat[],
  config: Config,
): void {
  if (formats.length === 0) return;
  const model = mergeModel(source, null);
  if (formats.includes("gguf")) {
    for (const name of config.quantization) ggufMetaOf(model, tokenizer, parseQuantization(name), {});
    checkImatrix(config.imatrix);
  }
  const folder = formats.some((f) => f.startsWith("merged"));
  if (folder) checkModelFolder(model, tokenizer);
  const place = resolve(config.save_path), own = resolve(source.path);
  const written = config.quantization.map((name) => ggufPath(place, stemOf(source), parseQuantization(name)));
  if ((folder && place === own) || (formats.includes("gguf") && written.includes(own))) {
    throw new ConfigError(`Cannot save to ${config.save_path}: the model itself lies there; give another --save_path`);
  }
}

function checkImatrix(path: string | null): void {
  if (path === null) return;
  if (!existsSync(path) || !statSync(path).isFile()) {
    throw new ConfigError(`Cannot use --imatrix ${path}: there is no such file`);
  }
  if (path.endsWith(".gguf")) readImportance(path);
  else if (readFileSync(path, "utf8").trim() === "") throw new ConfigError(`Cannot use --imatrix ${path}: it is empty`);
}

/** What an export starts from. */
export interface ExportInput {
  readonly source: ModelSource;
  readonly tokenizer: Tokenizer;
  readonly trained: Trained;
  readonly backend: Backend;
  /** The trained model where it is still loaded. */
  readonly model?: Model;
}

/**
 * The importance matrix of --imatrix: read from an imatrix file, or made from a text with the model as it was before
 * training, and kept beside the export.
 */
async function importanceFor(input: ExportInput, config: Config, { terminal }: CliContext): Promise<Importance> {
  const path = config.imatrix!, { source, backend, tokenizer } = input;
  if (path.endsWith(".gguf")) return readImportance(path);
  const matrix = await collectImportance({
    ...{ source, backend, tokenizer, texts: [readFileSync(path, "utf8")], dataset: basename(path) },
    ...{ chunkTokens: Math.min(512, config.max_seq_length) },
    onProgress: (chunk, of) => terminal.status(chunk < of ? `Calibrating ${chunk} of ${of}` : ""),
  });
  mkdirSync(config.save_path, { recursive: true });
  const kept = join(config.save_path, "imatrix.gguf");
  await writeImportance(kept, matrix);
  terminal.out(`Wrote ${kept} from ${matrix.tokens} tokens of ${path}`);
  return importanceOf(matrix);
}

/** Writes the formats to save_path, compares them with the trained model, and says so. */
export async function exportTo(
  input: ExportInput,
  formats: readonly ExportFormat[],
  config: Config,
  context: CliContext,
): Promise<ExportedFile[]> {
  const { terminal, openCodec } = context, { source, tokenizer, trained, backend, model } = input;
  const weighed = config.imatrix !== null && formats.includes("gguf");
  const importance = weighed ? await importanceFor(input, config, context) : undefined;
  const files = await exportModel({
    ...{ source, trained, tokenizer, formats, quantization: config.quantization, outDir: config.save_path, openCodec },
    ...(importance ? { importance } : {}),
    verify: { backend, ...(model ? { model } : {}) },
    log: (sentence) => terminal.out(sentence),
    onProgress: (what, done, total) => {
      terminal.status(done < total ? `Writing ${what} ${Math.floor(100 * done / total)} %` : "");
    },
  });
  terminal.status("");
  return files;
}

/** Uploads what was written, as far as the settings ask for it. */
export async function push(
  files: readonly ExportedFile[],
  config: Config,
  { terminal, signal }: CliContext,
): Promise<void> {
  const wanted = files.filter((f) => f.format === "gguf" ? config.push_gguf : config.push_model);
  if (wanted.length === 0) return;
  const own = wanted.map((f) => relative(config.save_path, f.path));
  // A GGUF goes alone, with the Modelfile beside it; a folder's own files are all the others.
  const whole = own.includes(""), ollama = wanted.some((f) => f.format === "gguf");
  const takes = (path: string) =>
    own.includes(path) || (path.startsWith("Modelfile") ? ollama : whole && !path.endsWith(".gguf"));
  const onProgress = (file: string, share: number) => {
    terminal.status(`Uploading ${file} ${Math.floor(100 * share)} %`);
  };
  const url = await uploadFolder(
    config.hub_path,
    config.save_path,
    { token: config.hub_token, signal, onProgress },
    takes,
  );
  terminal.status("");
  const bytes = wanted.reduce((n, f) => n + f.bytes, 0);
  terminal.out(`Pushed ${bytesText(bytes)} to ${url}`);
}
