/** What will be written at the end: checked before the beginning, then written, compared and pushed. @module */
import { relative } from "node:path";
import { type ExportedFile, type ExportFormat, exportModel, parseQuantization, type Trained } from "../export/mod.ts";
import { ggufMetaOf } from "../export/gguf_meta.ts";
import { mergeModel } from "../export/merge.ts";
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { uploadFolder } from "../hub/mod.ts";
import type { Model, ModelSource } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { bytesText } from "./terminal.ts";

/** The forms the settings ask train for. */
export function trainFormats(config: Config): ExportFormat[] {
  const saved = config.save_model ? [saveFormat(config)] : [];
  return config.save_gguf ? [...saved, "gguf"] : saved;
}

/** The form of --save_method. @throws {ConfigError} for merged_4bit */
export function saveFormat({ save_method: method }: Config): ExportFormat {
  if (method !== "merged_4bit") return method;
  throw new ConfigError(
    "Cannot use --save_method merged_4bit: merged safetensors are 16-bit here; --save_gguf --quantization q4_0 is 4-bit",
  );
}

/**
 * Makes all of a GGUF's metadata once, which meets every name, architecture and tokenizer it cannot express.
 * @throws {ConfigError} for what would only fail after training
 */
export function checkExport(
  source: ModelSource,
  tokenizer: Tokenizer,
  formats: readonly ExportFormat[],
  config: Config,
): void {
  if (!formats.includes("gguf")) return;
  for (const name of config.quantization) ggufMetaOf(mergeModel(source, null), tokenizer, parseQuantization(name), {});
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

/** Writes the formats to save_path, compares them with the trained model, and says so. */
export async function exportTo(
  input: ExportInput,
  formats: readonly ExportFormat[],
  config: Config,
  { terminal, openCodec }: CliContext,
): Promise<ExportedFile[]> {
  const { source, tokenizer, trained, backend, model } = input;
  const files = await exportModel({
    ...{ source, trained, tokenizer, formats, quantization: config.quantization, outDir: config.save_path, openCodec },
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
