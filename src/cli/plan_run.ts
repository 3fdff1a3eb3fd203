/**
 * The run's memory, planned before a weight is read: what stays of the blocks between the passes, and whether it fits.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { MemoryError } from "../core/errors.ts";
import type { LoraOptions, ModelSource } from "../models/mod.ts";
import { type CheckpointMode, chooseCheckpointing, type PlannedCheckpointing } from "../train/checkpointing.ts";
import { passOptions, type TrainRun } from "../train/mod.ts";
import type { Config } from "./config.ts";
import { bytesText } from "./terminal.ts";

/** What loading and planning call full fine-tuning, or adapters. */
export function trainedBy(lora: LoraOptions | null): { full: true } | { lora: LoraOptions } {
  return lora ? { lora } : { full: true };
}

/** Unsloth's words and plainer ones for the same. */
const MODES = {
  unsloth: "selective",
  selective: "selective",
  true: "full",
  full: "full",
  false: "none",
  none: "none",
} as const satisfies Record<Config["use_gradient_checkpointing"], CheckpointMode>;

/**
 * Plans by the settings; `unsloth` leaves half of the memory to others.
 * @throws {MemoryError} when the plan exceeds the device
 */
export function planRun(
  config: Config,
  source: ModelSource,
  be: Backend,
  lora: LoraOptions | null,
  run: Omit<TrainRun, "model">,
): PlannedCheckpointing {
  const { limit, active } = be.memory(), wanted = config.use_gradient_checkpointing;
  const left = limit === 0 ? Infinity : limit - active;
  const chosen = chooseCheckpointing(source, be, {
    ...{ mode: MODES[wanted], budget: wanted === "unsloth" ? left / 2 : left },
    ...{ ...trainedBy(lora), pass: passOptions(run), optim: run.optim },
  });
  if (chosen.memory.total <= left) return chosen;
  const way = MODES[wanted] !== "none"
    ? "lower --per_device_train_batch_size or --max_seq_length"
    : "use --use_gradient_checkpointing true";
  throw new MemoryError(
    `Cannot train: the run needs ${bytesText(chosen.memory.total)} and the device has ${bytesText(left)}; ${way}`,
    chosen.memory.total,
    left,
  );
}
