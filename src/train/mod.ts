/** Training: the run loop over steps, with evaluation, checkpoints and metrics. @module */
export { feed, type FeedOptions, stepsPerEpoch } from "./feed.ts";
export {
  type AdaptiveRankOptions,
  checkAdaptiveRank,
  defaultInterval,
  type RankFigures,
  rankSchedule,
} from "./adaptive_rank.ts";
export { type CheckpointMode, chooseCheckpointing, type PlannedCheckpointing } from "./checkpointing.ts";
export type { MemoryPlan } from "./plan.ts";
export { curveSvg, drawCurve, type Point } from "./curve.ts";
export { type EvalFigures, evalLine, type MetricsLine, readMetrics, type TrainFigures, trainLine } from "./metrics.ts";
export { OPTIMIZER_NAMES } from "./optimizers.ts";
export { checkResume, latestCheckpoint } from "./state.ts";
export { passOptions, train, type TrainEvent, type TrainResult, type TrainRun } from "./trainer.ts";
export type { OptimOptions, ScheduleName, StepMetrics } from "./types.ts";
