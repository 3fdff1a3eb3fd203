/**
 * A folder of right answers made by transformers and peft (../shared/tools/make_goldens.py, tools/goldens): what it holds,
 * as data. Padded rows become packed sequences by their attention mask.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Batch } from "../../src/data/types.ts";
import type { Adapter } from "../../src/formats/adapter.ts";
import { parsePeftConfig, readPeft } from "../../src/formats/peft.ts";
import { openSafetensors, type Safetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import type { LoraOptions, LoraStart } from "../../src/models/mod.ts";
import type { OptimOptions, ScheduleArgs } from "../../src/train/types.ts";

/** How a case trains. */
export interface TrainRecipe {
  readonly steps: number;
  readonly warmup: number;
  readonly lr: number;
  readonly betas: [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  /** 0: off. */
  readonly clip: number;
  readonly schedule: OptimOptions["schedule"];
  readonly schedule_args?: Readonly<Record<string, number | string>>;
  /** Default adamw_torch. */
  readonly optimizer?: string;
  readonly momentum?: number;
  readonly lora_plus?: number;
  readonly decay_vectors?: boolean;
  readonly label_smoothing?: number;
  readonly z_loss?: number;
}

/** case.json. */
export interface Recipe {
  readonly name?: string;
  readonly full?: boolean;
  /** An adapter that starts by peft's rule instead of from a file, with peft's settings. */
  readonly start?: LoraStart;
  readonly lora_config?: Record<string, unknown>;
  /** golden-real: the model's file name. */
  readonly model?: string;
  readonly prompts?: Readonly<Record<string, unknown>>;
  /** What is not recorded: `logits`, `grad`, `final`, `greedy`. */
  readonly left_out?: readonly string[];
  /** Folder beside this one that holds the weights; absent: this one. */
  readonly base?: string;
  readonly train: TrainRecipe;
}

/** An opened case. */
export interface Case {
  readonly name: string;
  readonly dir: string;
  /** Folder of config.json and the weights. */
  readonly weights: string;
  readonly recipe: Recipe;
  readonly golden: Safetensors;
  /** What is adapted; null for full fine-tuning. */
  readonly lora: LoraOptions | null;
  /** The adapter training starts from; null for full fine-tuning and for starts by rule. */
  readonly adapter: Adapter | null;
}

/** The cases of a folder: itself, or its subfolders. */
export function findCases(dir: string): string[] {
  const isCase = (d: string) => existsSync(join(d, "golden.safetensors")) && existsSync(join(d, "case.json"));
  if (isCase(dir)) return [dir];
  return readdirSync(dir).sort().map((n) => join(dir, n)).filter(isCase);
}

/** Opens a case. */
export function openCase(dir: string): Case {
  const recipe: Recipe = JSON.parse(readFileSync(join(dir, "case.json"), "utf8"));
  const adapter = recipe.full || recipe.start ? null : readPeft(join(dir, "adapter"));
  const lora = adapter ? adapter.settings : recipe.start ? startedBy(recipe.start, recipe.lora_config ?? {}) : null;
  const weights = recipe.base ? join(dir, "..", recipe.base) : dir;
  const golden = openSafetensors(join(dir, "golden.safetensors"));
  return { name: basename(dir), dir, weights, recipe, golden, adapter, lora };
}

const startedBy = (start: LoraStart, config: Record<string, unknown>): LoraOptions => ({
  ...parsePeftConfig({ peft_type: "LORA", ...config }),
  start,
});

/** Whether the case says that it does not record this. */
export const leftOut = (c: Case, what: string): boolean => c.recipe.left_out?.includes(what) ?? false;

/** Values of a recorded tensor. */
export function values(c: Case, name: string): Float32Array {
  const t = c.golden.tensors.get(name);
  if (!t) throw new Error(`Cannot check '${c.name}': its golden file has no '${name}'`);
  return readFloats(t);
}

/** Recorded tensors whose names start so, without the start. */
export function valuesUnder(c: Case, prefix: string): Map<string, Float32Array> {
  const names = [...c.golden.tensors.keys()].filter((n) => n.startsWith(prefix));
  return new Map(names.map((n) => [n.slice(prefix.length), values(c, n)]));
}

/** Rows [B,S] with mask and labels as one packed batch; labels are shifted to targets, -100 is not trained. */
export function packRows(ids: Float32Array, mask: Float32Array, labels: Float32Array, width: number): Batch {
  const out = { ids: [] as number[], targets: [] as number[], weights: [] as number[], pos: [] as number[], cu: [0] };
  for (let row = 0; row < ids.length; row += width) {
    const length = mask.subarray(row, row + width).reduce((a, b) => a + b, 0);
    for (let i = 0; i < length; i++) {
      const label = i + 1 < length ? labels[row + i + 1] : -100;
      out.ids.push(ids[row + i]);
      out.targets.push(label === -100 ? 0 : label);
      out.weights.push(label === -100 ? 0 : 1);
      out.pos.push(i);
    }
    out.cu.push(out.ids.length);
  }
  const i32 = (x: number[]) => Int32Array.from(x);
  return {
    ids: i32(out.ids),
    targets: i32(out.targets),
    weights: Float32Array.from(out.weights),
    pos: i32(out.pos),
    cu: i32(out.cu),
  };
}

/** golden-real's batches, one a step. */
export function stepBatches(c: Case): Batch[] {
  const [steps, , width] = c.golden.tensors.get("ids")!.shape;
  const all = ["ids", "attention_mask", "labels"].map((n) => values(c, n)), size = all[0].length / steps;
  return Array.from({ length: steps }, (_, s) => {
    const [ids, mask, labels] = all.map((x) => x.subarray(s * size, (s + 1) * size));
    return packRows(ids, mask, labels, width);
  });
}

/** The micro-batches of a step: input_ids, attention_mask and labels are [B,S], or [M,B,S] for M of them. */
export function microBatches(c: Case): Batch[] {
  const { shape } = c.golden.tensors.get("input_ids")!, width = shape.at(-1)!, size = shape.at(-2)! * width;
  const all = ["input_ids", "attention_mask", "labels"].map((n) => values(c, n));
  return Array.from({ length: all[0].length / size }, (_, m) => {
    const [ids, mask, labels] = all.map((x) => x.subarray(m * size, (m + 1) * size));
    return packRows(ids, mask, labels, width);
  });
}

/** transformers' lr_scheduler_kwargs under our names. */
const ARGS: Readonly<Record<string, keyof ScheduleArgs>> = {
  num_cycles: "numCycles",
  lr_end: "lrEnd",
  power: "power",
  timescale: "timescale",
  num_decay_steps: "numDecaySteps",
  num_stable_steps: "numStableSteps",
  warmup_type: "warmupType",
  decay_type: "decayType",
  min_lr_ratio: "minLrRatio",
};

/** The recipe's optimiser. */
export function optimOf(r: Recipe): OptimOptions {
  const { train: t } = r;
  const args = Object.entries(t.schedule_args ?? {}).map(([k, v]) => {
    if (ARGS[k]) return [ARGS[k], v];
    throw new Error(`Cannot run '${r.name}': the runner does not know the schedule's '${k}'`);
  });
  return {
    name: t.optimizer ?? "adamw_torch",
    lr: t.lr,
    betas: t.betas,
    eps: t.eps,
    weightDecay: t.weight_decay,
    maxGradNorm: t.clip,
    schedule: t.schedule,
    warmupSteps: t.warmup,
    totalSteps: t.steps,
    scheduleArgs: Object.fromEntries(args),
    momentum: t.momentum,
    loraPlusRatio: t.lora_plus,
    decayVectors: t.decay_vectors,
  };
}
