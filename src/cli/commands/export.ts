/** `export`: a model, with its adapter merged, as GGUF or as a Hugging Face folder; what is written is compared. @module */
import { ConfigError } from "../../core/errors.ts";
import type { ExportFormat, Trained } from "../../export/mod.ts";
import { readPeft } from "../../formats/peft.ts";
import { openModel } from "../../models/mod.ts";
import { loadTokenizer } from "../../tokenizer/mod.ts";
import { type CliContext, openBackend } from "../context.ts";
import { checkExport, exportTo } from "../export_plan.ts";
import { findModel } from "../find_model.ts";
import { checkWritable } from "../preflight.ts";
import type { Settings } from "../settings.ts";

/** Runs the command. */
export async function run(settings: Settings, context: CliContext): Promise<number> {
  const { config, given } = settings, found = await findModel(config, context);
  const formats: ExportFormat[] = given.has("save_method") ? [config.save_method] : [];
  if (!given.has("save_method") || given.has("quantization")) formats.push("gguf");
  const trained: Trained = found.adapter === null
    ? { kind: "none" }
    : { kind: "adapter", adapter: readPeft(found.adapter) };
  if (trained.kind === "none" && formats.some((f) => f.startsWith("lora") || f === "mlx")) {
    throw new ConfigError(`Cannot export ${formats[0]}: ${found.name} is no adapter; name one, or use --adapter`);
  }
  const source = openModel(found.path), tokenizer = loadTokenizer(found.path);
  try {
    checkExport(source, tokenizer, formats, config);
    checkWritable("save_path", config.save_path, true);
    const backend = await openBackend(settings, context);
    try {
      await exportTo({ source, tokenizer, trained, backend }, formats, config, context);
    } finally {
      backend.close();
    }
  } finally {
    source.close();
  }
  return 0;
}
