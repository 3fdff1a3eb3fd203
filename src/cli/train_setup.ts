/**
 * From settings to all a run needs, without loading a weight: model files, tokenizer, rows, what is trained, how much
 * memory it takes. What cannot work is refused here, before anything slow begins.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { type Counts, type Dataset, digestRows } from "../data/mod.ts";
import {
  type LoraOptions,
  type ModelSource,
  openModel,
  planTraining,
  quantizeSource,
  roundSource,
} from "../models/mod.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer/mod.ts";
import {
  type AdaptiveRankOptions,
  checkAdaptiveRank,
  defaultInterval,
  rankSchedule,
  stepsPerEpoch,
  type TrainRun,
} from "../train/mod.ts";
import type { Checkpointing } from "../nn/checkpoint.ts";
import type { MemoryPlan } from "../train/plan.ts";
import type { OptimOptions } from "../train/types.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { findModel, type FoundModel } from "./find_model.ts";
import { loraOptions } from "./lora_options.ts";
import { planRun } from "./plan_run.ts";
import type { Settings } from "./settings.ts";
import { chooseTemplate, findData, loadData, type TrainData } from "./train_data.ts";

/** Everything known before the weights are read. */
export interface TrainSetup {
  readonly found: FoundModel;
  readonly source: ModelSource;
  readonly tokenizer: Tokenizer;
  readonly dataset: Dataset;
  readonly counts: Counts;
  /** Sentences to print about the data, and about weights that a flag does not reach. */
  readonly notes: readonly string[];
  /** null: full fine-tuning. */
  readonly lora: LoraOptions | null;
  /** The run but for the loaded model. */
  readonly run: Omit<TrainRun, "model">;
  readonly stepsPerEpoch: number;
  /** What stays of the blocks between the passes. */
  readonly checkpoint: Checkpointing;
  readonly memory: MemoryPlan;
}

/** Opens and plans. The caller closes `source` and the rows. */
export async function setUp(settings: Settings, be: Backend, context: CliContext): Promise<TrainSetup> {
  const { config, given } = settings, path = await findData(config, context);
  const found = await findModel(config, context);
  if (found.adapter) {
    throw new ConfigError(`Cannot train ${found.name}: it is an adapter; train its base, or go on with --resume`);
  }
  checkFp8(config, be);
  const source = open(found.path, config), tokenizer = chooseTemplate(loadTokenizer(found.path), config);
  if (given.has("max_seq_length")) checkLength(config, source);
  if (config.bias !== "none" && !source.tensors.some((t) => t.hf.endsWith(".bias"))) {
    throw new ConfigError(`Cannot use --bias ${config.bias}: the model has no biases`);
  }
  const data = await loadData(settings, path, tokenizer, source, context);
  const lora = config.full_finetuning ? null : loraOptions(config, source, found.name);
  const rows = { rows: data.rows, heldOut: data.heldOut };
  const feed = {
    batchSize: config.per_device_train_batch_size,
    packTo: config.packing ? config.max_seq_length : null,
    groupByLength: config.group_by_length,
    seed: config.seed,
    accumulation: config.gradient_accumulation_steps,
  };
  const perEpoch = stepsPerEpoch(data.rows, feed);
  const steps = config.num_train_epochs === null
    ? config.max_steps
    : Math.max(1, Math.ceil(config.num_train_epochs * perEpoch));
  const run = {
    ...{ ...rows, feed, optim: optimOptions(config, steps), smoothing: config.label_smoothing_factor },
    ...(config.neftune_noise_alpha === null ? {} : { neftune: config.neftune_noise_alpha }),
    ...{ evalBatchSize: config.per_device_eval_batch_size, evalEvery: config.eval_steps },
    adaptiveRank: adaptiveRank(config, source, lora, steps),
    ...{ patience: config.early_stopping_patience, logEvery: config.logging_steps, dir: config.output_dir },
    ...{ saveEvery: config.save_steps, keep: config.save_total_limit, resume: config.resume },
    ...{ tensorboard: config.report_to === "tensorboard", settings: fingerprint(config, found, data, steps) },
    signal: context.signal,
  };
  const { checkpoint, memory } = planRun(config, source, be, lora, run);
  const notes = [...(config.load_in_fp8 ? notRounded(source) : []), ...data.notes];
  return { found, source, tokenizer, ...data, notes, lora, run, stepsPerEpoch: perEpoch, checkpoint, memory };
}

/** What --load_in_fp8 leaves as it is. */
function notRounded(source: ModelSource): string[] {
  const linears = source.tensors.filter((t) => t.shape.length === 2 && t.ours.startsWith("layers."));
  const left = linears.filter((t) => !t.unrounded).length;
  return left
    ? [`${left} of ${linears.length} linears are not rounded to 8 bits: their sizes are no multiples of 128`]
    : [];
}

/** @throws {ConfigError} when the backend has no 8-bit matrix units */
function checkFp8(config: Config, be: Backend): void {
  if (!config.load_in_fp8 || be.supports("fp8_128")) return;
  throw new ConfigError(
    `Cannot use --load_in_fp8 on ${be.name}: it needs an NVIDIA GPU of compute capability 9.0; --load_in_4bit works everywhere`,
  );
}

/** The model's files; with --load_in_4bit or --load_in_fp8 its linears are rounded to all who read it. */
function open(path: string, config: Config): ModelSource {
  const exact = openModel(path);
  if (config.load_in_fp8) {
    const source = roundSource(exact);
    if (source.tensors.some((t) => t.unrounded)) return source;
    exact.close();
    throw new ConfigError(
      `Cannot use --load_in_fp8: no linear of ${path} is in 16 or 32 bits with sizes that are multiples of 128`,
    );
  }
  if (!config.load_in_4bit) return exact;
  const source = quantizeSource(exact);
  if (source.tensors.some((t) => t.stored.dtype === "nf4")) return source;
  exact.close();
  throw new ConfigError(
    `Cannot use --load_in_4bit: no linear of ${path} is in 16 or 32 bits with rows of whole blocks of 64`,
  );
}

function checkLength(config: Config, { config: { maxPos } }: ModelSource): void {
  if (config.max_seq_length <= maxPos) return;
  throw new ConfigError(
    `Cannot use --max_seq_length ${config.max_seq_length}: the model's positions end at ${maxPos}, and RoPE is not stretched here`,
  );
}

/** @throws {ConfigError} when the run is too short, or the adapters cannot be lowered so far */
function adaptiveRank(
  c: Config,
  source: ModelSource,
  lora: LoraOptions | null,
  steps: number,
): AdaptiveRankOptions | null {
  if (!c.adaptive_rank || !lora) return null;
  const every = c.adaptive_rank_interval ?? defaultInterval(steps);
  const options = { target: c.adaptive_rank_target ?? Math.max(1, c.r / 2), every };
  rankSchedule(every, steps);
  checkAdaptiveRank(planTraining(source, { lora }).specs, options);
  return options;
}

function optimOptions(c: Config, totalSteps: number): OptimOptions {
  return {
    name: c.optim,
    lr: c.learning_rate,
    betas: [c.adam_beta1, c.adam_beta2],
    eps: c.adam_epsilon,
    weightDecay: c.weight_decay,
    decayVectors: false, // as transformers' Trainer (get_decay_parameter_names)
    maxGradNorm: c.max_grad_norm,
    schedule: c.lr_scheduler_type,
    warmupSteps: c.warmup_steps,
    totalSteps,
    ...(c.loraplus_lr_ratio === null ? {} : { loraPlusRatio: c.loraplus_lr_ratio }),
  };
}

/** What must be the same for a resumed run to be the same run. */
function fingerprint(
  c: Config,
  found: FoundModel,
  { counts, rows }: TrainData,
  steps: number,
): Record<string, unknown> {
  const names = [
    ...["max_seq_length", "r", "lora_alpha", "lora_dropout", "bias", "target_modules", "layers", "use_rslora"],
    ...["use_dora", "random_state", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"],
    ...["warmup_steps", "lr_scheduler_type", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"],
    ...["max_grad_norm", "label_smoothing_factor", "seed", "packing", "group_by_length", "train_on_inputs"],
    ...[
      "response_turns",
      "preference",
      "max_samples",
      "chat_template",
      "eval_split",
      "adaptive_rank",
      "adaptive_rank_target",
    ],
    ...["adaptive_rank_interval"],
    ...["full_finetuning", "loraplus_lr_ratio", "neftune_noise_alpha", "init_lora_weights", "load_in_4bit"],
    ...["load_in_fp8"],
  ] as const;
  const same = Object.fromEntries(names.map((n) => [n, c[n]]));
  const data = { rows: counts.rows, tokens: counts.tokens, trained: counts.trainedTokens, data: digestRows(rows) };
  return { model: found.name, ...data, steps, ...same };
}
