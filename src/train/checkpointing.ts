/**
 * Which tensors of a block stay between the passes, chosen by plan: each choice is recorded, and the one that keeps most
 * within the budget is taken. Recording a model of 28 layers takes some milliseconds.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import type { ModelSource } from "../models/source.ts";
import type { Checkpointing } from "../nn/checkpoint.ts";
import { LEVEL, type Level } from "../nn/mixer.ts";
import { type MemoryPlan, planMemory, type PlanOptions } from "./plan.ts";

/**
 * none: all that products make stays; full: the blocks' inputs; offload: those wait in host memory; selective: what recomputes
 * dearest stays, as far as it fits.
 */
export type CheckpointMode = "none" | "full" | "offload" | "selective";

/** A choice and what it takes. */
export interface PlannedCheckpointing {
  readonly checkpoint: Checkpointing;
  readonly memory: MemoryPlan;
}

/** What is planned, but for the choice. */
export interface ChoiceOptions extends Omit<PlanOptions, "checkpoint"> {
  readonly mode: CheckpointMode;
  /** Bytes that all may take; of consequence to `selective`. Default: no bound. */
  readonly budget?: number;
  /** `selective`: the blocks' inputs wait in host memory, to leave room for more. Default false. */
  readonly offload?: boolean;
}

/** The levels of a mode; `selective` takes the most that fits, and at least what `full` does. */
export function chooseCheckpointing(
  source: ModelSource,
  be: Pick<Backend, "actDtype" | "supports" | "workspace" | "renorm">,
  { mode, budget = Infinity, offload = mode === "offload", ...o }: ChoiceOptions,
): PlannedCheckpointing {
  const { layers } = source.config;
  const plan = (levels: Level[]): PlannedCheckpointing => {
    const checkpoint = offload ? { levels, offload } : { levels };
    return { checkpoint, memory: planMemory(source, be, { ...o, checkpoint }) };
  };
  if (mode === "none") return plan(Array(layers).fill(LEVEL.products));
  let best = plan(ladder(layers, 0));
  if (mode === "selective" && best.memory.total <= budget) {
    // What fits is below what does not, so halving finds the last that fits.
    let fits = 0, over = LEVEL.all * layers + 1;
    while (over - fits > 1) {
      const middle = Math.floor((fits + over) / 2), tried = plan(ladder(layers, middle));
      if (tried.memory.total <= budget) [fits, best] = [middle, tried];
      else over = middle;
    }
  }
  return keepLast(plan, best, mode === "selective" ? Math.max(budget, best.memory.total) : best.memory.total);
}

/** Step `i` of 5·L: every block at level floor(i/L), and the last i mod L one higher. */
function ladder(layers: number, i: number): Level[] {
  const level = Math.floor(i / layers), raised = i % layers;
  return Array.from({ length: layers }, (_, n) => (n >= layers - raised ? level + 1 : level) as Level);
}

/** The last block's backward follows at once, so keeping more of it may take no more memory than recomputing it. */
function keepLast(
  plan: (levels: Level[]) => PlannedCheckpointing,
  best: PlannedCheckpointing,
  total: number,
): PlannedCheckpointing {
  const { levels } = best.checkpoint;
  for (let level = LEVEL.all; level > levels[levels.length - 1]; level--) {
    const tried = plan(levels.with(-1, level as Level));
    if (tried.memory.total <= total) return tried;
  }
  return best;
}
