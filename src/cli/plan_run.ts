/**
 * The run's memory, planned before a weight is read: what stays of the blocks between the passes, and whether it fits. Where
 * it does not, the refusal holds the plan as a table and the flags that would make it fit, those first that cost least speed.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { MemoryError } from "../core/errors.ts";
import { isQuantized, type LoraOptions, type ModelSource, quantizeSource, roundSource } from "../models/mod.ts";
import {
  type CheckpointMode,
  chooseCheckpointing,
  type MemoryPlan,
  passOptions,
  type PlannedCheckpointing,
  type TrainRun,
} from "../train/mod.ts";
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
  offload: "offload",
} as const satisfies Record<Config["use_gradient_checkpointing"], CheckpointMode>;

/** A run but for its model. */
type Run = Omit<TrainRun, "model">;

/** What a plan depends on that flags can change. */
interface Choice {
  readonly source: ModelSource;
  readonly mode: CheckpointMode;
  /** Rows a micro-batch. */
  readonly batch: number;
}

/** A flag that lowers the need, and what it makes of a choice; null: it cannot act. */
interface Way {
  readonly flag: string;
  change(c: Choice): Choice | null;
}

/**
 * Plans by the settings; `unsloth` keeps what fits into half of the memory, and moves the blocks' inputs to the host where
 * not even they fit into all of it.
 * @throws {MemoryError} when the plan exceeds the device
 */
export function planRun(
  config: Config,
  source: ModelSource,
  be: Backend,
  lora: LoraOptions | null,
  run: Run,
): PlannedCheckpointing {
  const { limit, active } = be.memory(), wanted = config.use_gradient_checkpointing, mode = MODES[wanted];
  const left = limit === 0 ? Infinity : Math.max(0, limit - active);
  if (mode === "offload") refuseOffload(be);
  const plan = (c: Choice, budget = left): PlannedCheckpointing => {
    const pass = passOptions({ ...run, feed: { ...run.feed, batchSize: c.batch } });
    return chooseCheckpointing(c.source, be, { ...trainedBy(lora), mode: c.mode, budget, pass, optim: run.optim });
  };
  const asked: Choice = { source, mode, batch: run.feed.batchSize };
  let chosen = plan(asked, wanted === "unsloth" ? left / 2 : left);
  if (wanted === "unsloth" && chosen.memory.total > left && be.offloads() === null) {
    chosen = plan({ ...asked, mode: "offload" });
  }
  if (chosen.memory.total <= left) return chosen;
  const ways = waysFor(asked, be, lora, run, (c) => plan(c).memory.total, left);
  throw new MemoryError(refusal(chosen.memory, left, ways), chosen.memory.total, left);
}

/** @throws {MemoryError} where there is no other memory to move to */
function refuseOffload(be: Backend): void {
  const why = be.offloads();
  if (why !== null) {
    throw new MemoryError(`Cannot use --use_gradient_checkpointing offload on ${be.name}: ${why}`, 0, 0);
  }
}

/** In the order of what they cost: nothing; a second forward; narrower weights; smaller products. */
function allWays(be: Backend, lora: LoraOptions | null, run: Run): Way[] {
  const to = (mode: CheckpointMode, from: readonly CheckpointMode[]): Way => ({
    flag: `--use_gradient_checkpointing ${mode}`,
    change: (c) => from.includes(c.mode) ? { ...c, mode } : null,
  });
  const narrower = (flag: string, make: (s: ModelSource) => ModelSource): Way => ({
    flag,
    change: (c) => lora && !isQuantized(c.source) ? { ...c, source: make(c.source) } : null,
  });
  const ways = [to("selective", ["none", "full"])];
  if (be.offloads() === null) ways.push(to("offload", ["none", "full", "selective"]));
  if (be.supports("fp8_128")) ways.push(narrower("--load_in_fp8", roundSource));
  if (be.supports("nf4")) ways.push(narrower("--load_in_4bit", quantizeSource));
  const { batchSize, accumulation } = run.feed;
  for (let batch = batchSize >> 1; batch >= 1; batch >>= 1) {
    const steps = Math.ceil(batchSize * accumulation / batch);
    ways.push({
      flag: `--per_device_train_batch_size ${batch} --gradient_accumulation_steps ${steps}`,
      change: (c) => c.batch > batch ? { ...c, batch } : null,
    });
  }
  return ways;
}

/** Flags with what each would need, as far as it fits: alone, or where none does alone, together. */
function waysFor(
  asked: Choice,
  be: Backend,
  lora: LoraOptions | null,
  run: Run,
  need: (c: Choice) => number,
  left: number,
): [flags: string, bytes: number][] {
  const ways = allWays(be, lora, run), alone: [string, number][] = [];
  for (const { flag, change } of ways) {
    const changed = change(asked), bytes = changed ? need(changed) : Infinity;
    // Of the batch sizes the largest that fits is enough.
    if (bytes <= left && !alone.some(([f]) => f.split(" ")[0] === flag.split(" ")[0] && flag.includes("batch"))) {
      alone.push([flag, bytes]);
    }
  }
  if (alone.length) return alone;
  let c = asked, least = need(asked);
  const used = new Map<string, string>();
  for (const { flag, change } of ways) {
    const changed = change(c), bytes = changed ? need(changed) : Infinity;
    if (!changed || bytes >= least) continue;
    [c, least] = [changed, bytes];
    used.set(flag.split(" ")[0], flag);
    if (bytes <= left) return [[[...used.values()].join(" "), bytes]];
  }
  return [];
}

/** A device that had less than its plan asked for: what it said, and the plan. */
export function withPlan(e: MemoryError, m: MemoryPlan): MemoryError {
  const table = [`${e.message}; the plan of this run takes ${bytesText(m.total)}:`, ...tableOf(m)];
  return new MemoryError(table.join("\n"), e.needed, e.available);
}

function tableOf(m: MemoryPlan): string[] {
  const row = (name: string, n: number) => `  ${name.padEnd(24)}${bytesText(n).padStart(10)}`;
  return [
    row("weights", m.weights),
    row("trained and gradients", m.params + m.grads),
    row("optimiser", m.optimizer),
    row("activations", m.arena),
    row("batch and workspace", m.inputs + m.workspace),
    ...m.host ? [row("(on the host)", m.host)] : [],
  ];
}

function refusal(m: MemoryPlan, left: number, ways: readonly [string, number][]): string {
  const widest = Math.max(...ways.map(([f]) => f.length));
  const flags = ways.length
    ? [
      "What would fit, the least loss of speed first:",
      ...ways.map(([f, n]) => `  ${f.padEnd(widest)} ${bytesText(n)}`),
    ]
    : ["Nothing here makes it fit; lower --max_seq_length, or take a smaller model"];
  return [
    `Cannot train: the run needs ${bytesText(m.total)} and the device has ${bytesText(left)} left`,
    ...tableOf(m),
    ...flags,
  ].join("\n");
}
