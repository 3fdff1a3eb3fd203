/**
 * The library's options held against the command line's table: what a flag refuses, its option refuses too, and an option
 * that nobody reads is no option. TypeScript sees most of it, JavaScript nothing.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { type OptionName, OPTIONS } from "./config.ts";
import { nearest } from "./nearest.ts";
import { checkSetting } from "./option.ts";

/** Options of a function: the flag that means the same, or null where none does. */
export type OptionNames = Readonly<Record<string, OptionName | null>>;

/** Of `loadPretrained`. */
export const LOAD_OPTIONS: OptionNames = {
  ...{ backend: null, threads: "num_threads", memoryLimit: null, maxSeqLength: "max_seq_length", log: null },
  ...{ r: "r", loraAlpha: "lora_alpha", loraDropout: "lora_dropout", useRslora: "use_rslora", useDora: "use_dora" },
  ...{ targetModules: null, randomState: "random_state", gradientCheckpointing: null },
  ...{ revision: null, token: null, offline: null, cacheDir: null, endpoint: null, signal: null, onProgress: null },
};

/** Of `trainModel`. */
export const TRAIN_OPTIONS: OptionNames = {
  ...{ maxSteps: "max_steps", batchSize: "per_device_train_batch_size" },
  ...{ gradientAccumulation: "gradient_accumulation_steps", learningRate: "learning_rate" },
  ...{ warmupSteps: "warmup_steps", schedule: "lr_scheduler_type", optim: "optim", weightDecay: "weight_decay" },
  ...{ maxGradNorm: "max_grad_norm", seed: "seed", packing: "packing", trainOn: null, format: null, heldOut: null },
  ...{ evalSteps: "eval_steps", patience: "early_stopping_patience", outputDir: "output_dir", saveSteps: "save_steps" },
  ...{ resume: "resume", signal: null, onEvent: null, log: null },
};

/**
 * Refuses what the function would silently pass over.
 * @throws {ConfigError} for an option it has not, and a value that the flag of the same meaning refuses
 */
export function checkOptions(options: object, names: OptionNames): void {
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(names, key)) {
      const close = nearest(key.replaceAll(/_(\w)/g, (_, c: string) => c.toUpperCase()), Object.keys(names));
      throw new ConfigError(`Unknown option ${key}${close ? `: did you mean ${close}?` : ""}`);
    }
    const flag = names[key];
    if (flag && value !== undefined) checkSetting(key, OPTIONS[flag], value);
  }
}
