/**
 * A folder of right answers made by transformers and peft (../shared/tools/make_goldens.py): what it holds, as data.
 * Padded rows become packed sequences by their attention mask.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Batch } from "../../src/data/types.ts";
import type { Adapter } from "../../src/formats/adapter.ts";
import { parsePeftConfig, readPeft } from "../../src/formats/peft.ts";
import { openSafetensors, type Safetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import type { LoraOptions, LoraStart } from "../../src/models/mod.ts";
import type { OptimOptions } from "../../src/train/types.ts";

/** case.json. */
export interface Recipe {
  readonly full?: boolean;
  /** An adapter that starts by peft's rule instead of from a file, with peft's settings. */
  readonly start?: LoraStart;
  readonly lora_config?: Record<string, unknown>;
  /** golden-real: the model's file name. */
  readonly model?: string;
  readonly prompts?: Readonly<Record<string, unknown>>;
  readonly train: {
    readonly steps: number;
    readonly warmup: number;
    readonly lr: number;
    readonly betas: [number, number];
    readonly eps: number;
    readonly weight_decay: number;
    readonly clip: number;
    readonly schedule: OptimOptions["schedule"];
  };
}

/** An opened case. */
export interface Case {
  readonly name: string;
  readonly dir: string;
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
  return { name: basename(dir), dir, recipe, golden: openSafetensors(join(dir, "golden.safetensors")), adapter, lora };
}

const startedBy = (start: LoraStart, config: Record<string, unknown>): LoraOptions => ({
  ...parsePeftConfig({ peft_type: "LORA", ...config }),
  start,
});

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

/** The recipe's optimiser. */
export function optimOf(r: Recipe): OptimOptions {
  const { train: t } = r;
  return {
    name: "adamw_torch",
    lr: t.lr,
    betas: t.betas,
    eps: t.eps,
    weightDecay: t.weight_decay,
    maxGradNorm: t.clip,
    schedule: t.schedule,
    warmupSteps: t.warmup,
    totalSteps: t.steps,
  };
}
