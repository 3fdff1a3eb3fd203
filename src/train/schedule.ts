/** Learning-rate schedules by transformers' names and formulas (transformers 5, optimization.py). @module */
import { ConfigError } from "../core/errors.ts";
import type { OptimOptions, ScheduleArgs, ScheduleName } from "./types.ts";

type Settings = Pick<OptimOptions, "lr" | "schedule" | "warmupSteps" | "totalSteps" | "scheduleArgs">;

/** What a formula sees: steps done so far, warm-up, total, peak learning rate. */
interface At {
  readonly done: number;
  readonly warmup: number;
  readonly total: number;
  readonly lr: number;
  readonly args: ScheduleArgs;
}

/** Share of the way from the warm-up's end to the last step. */
const progress = ({ done, warmup, total }: At): number => (done - warmup) / Math.max(1, total - warmup);

/** Factors after the warm-up; `warmup_stable_decay` has its own. */
const SCHEDULES: Readonly<Record<ScheduleName, (at: At) => number>> = {
  linear: ({ done, warmup, total }) => Math.max(0, (total - done) / Math.max(1, total - warmup)),
  cosine: (at) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (at.args.numCycles ?? 0.5) * 2 * progress(at)))),
  cosine_with_restarts: (at) => {
    const p = progress(at);
    return p >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (((at.args.numCycles ?? 1) * p) % 1))));
  },
  polynomial: ({ done, warmup, total, lr, args }) => {
    const end = args.lrEnd ?? 1e-7;
    if (end >= lr) throw new ConfigError(`Cannot decay to ${end}: it is not below the learning rate ${lr}`);
    if (done > total) return end / lr;
    return ((lr - end) * (1 - (done - warmup) / (total - warmup)) ** (args.power ?? 1) + end) / lr;
  },
  constant: () => 1,
  constant_with_warmup: () => 1,
  inverse_sqrt: ({ done, warmup, args }) => {
    const timescale = args.timescale ?? (warmup || 10_000);
    return 1 / Math.sqrt((done + timescale - warmup) / timescale);
  },
  warmup_stable_decay: stableDecay,
};

/** Warm-up, plateau, decay; each end of the curve at `minLrRatio`. */
function stableDecay({ done, warmup, total, args }: At): number {
  const low = args.minLrRatio ?? 0, lift = (x: number) => Math.max(0, x * (1 - low) + low);
  if (done < warmup) {
    const p = done / Math.max(1, warmup), kind = args.warmupType ?? "linear";
    return lift(kind === "linear" ? p : kind === "cosine" ? 0.5 * (1 - Math.cos(Math.PI * p)) : 1 - Math.sqrt(1 - p));
  }
  const decay = args.numDecaySteps ?? Math.round(total / 10), stable = args.numStableSteps ?? total - warmup - decay;
  if (done < warmup + stable) return 1;
  if (done >= warmup + stable + decay) return low;
  const p = (done - warmup - stable) / Math.max(1, decay), kind = args.decayType ?? "cosine";
  if (kind === "linear") return lift(1 - p);
  if (kind === "1-sqrt") return lift(1 - Math.sqrt(p));
  return lift(0.5 * (1 + Math.cos(Math.PI * (args.numCycles ?? 0.5) * 2 * p)));
}

/** Which finer settings act in which schedule; transformers fails for the others (most) or takes no notice (constant ones). */
const ACTS: Readonly<Record<ScheduleName, readonly (keyof ScheduleArgs)[]>> = {
  ...{ linear: [], constant: [], constant_with_warmup: [], inverse_sqrt: ["timescale"] },
  ...{ cosine: ["numCycles"], cosine_with_restarts: ["numCycles"], polynomial: ["power", "lrEnd"] },
  warmup_stable_decay: ["numCycles", "numDecaySteps", "numStableSteps", "warmupType", "decayType", "minLrRatio"],
};

function refuseIdle(schedule: ScheduleName, args: ScheduleArgs): void {
  for (const key of Object.keys(args) as (keyof ScheduleArgs)[]) {
    if (args[key] === undefined || ACTS[schedule].includes(key)) continue;
    throw new ConfigError(
      `Cannot use ${key} with the schedule '${schedule}': it has ${ACTS[schedule].join(", ") || "none"}`,
    );
  }
}

/** All names. */
export const SCHEDULE_NAMES: readonly ScheduleName[] = Object.keys(SCHEDULES) as ScheduleName[];

/**
 * Learning rate of step `t` (1-based). As in transformers the first step of a warm-up has learning rate 0.
 * @throws {ConfigError} for an unknown schedule, or a finer setting that does not act in it
 */
export function learningRate(o: Settings, t: number): number {
  const schedule = SCHEDULES[o.schedule];
  if (!schedule) {
    throw new ConfigError(`Cannot use the schedule '${o.schedule}': there are ${SCHEDULE_NAMES.join(", ")}`);
  }
  refuseIdle(o.schedule, o.scheduleArgs ?? {});
  const at: At = { done: t - 1, warmup: o.warmupSteps, total: o.totalSteps, lr: o.lr, args: o.scheduleArgs ?? {} };
  const warming = at.done < at.warmup && o.schedule !== "constant" && o.schedule !== "warmup_stable_decay";
  return o.lr * (warming ? at.done / Math.max(1, at.warmup) : schedule(at));
}
