/** What will be written at the end, checked before the beginning. @module */
import { parseQuantization, type Quantization } from "../export/quantization.ts";
import type { ModelSource } from "../models/mod.ts";
import type { Config } from "./config.ts";

/**
 * The GGUF types asked for.
 * @throws {ConfigError} for a name this build does not have
 */
export function quantizations(config: Config): Quantization[] {
  return [...new Set(config.quantization.map(parseQuantization))];
}

/** @throws {ConfigError} for what would only fail after training */
export function checkExport(_source: ModelSource, config: Config): void {
  if (config.save_gguf) quantizations(config);
}
