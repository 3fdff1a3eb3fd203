/** What the trainer takes and gives. @module */
import type { Param } from "../nn/module.ts";
import type { Tensor } from "../core/tensor.ts";

/** Names of transformers' schedules. */
export type ScheduleName =
  | "linear"
  | "cosine"
  | "cosine_with_restarts"
  | "polynomial"
  | "constant"
  | "constant_with_warmup"
  | "inverse_sqrt"
  | "warmup_stable_decay";

/** What one optimiser step needs besides the batches. */
export interface OptimOptions {
  name: string;
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** Global gradient norm is clipped to this; 0 = off. */
  maxGradNorm: number;
  schedule: ScheduleName;
  warmupSteps: number;
  totalSteps: number;
}

/** An optimiser over device parameters; everything that changes a step lives in a device tensor. */
export interface Optimizer {
  /** Uploads learning rate and bias corrections of step `t` (1-based); called outside the captured step. */
  begin(lr: number, t: number): void;
  /** Launches clip factor and updates. */
  step(): void;
  /** Moments by name, for saving. */
  state(): Map<string, Tensor>;
  readonly params: readonly Param[];
}

/** Figures of one step. */
export interface StepMetrics {
  step: number;
  loss: number;
  gradNorm: number;
  lr: number;
  /** Trained tokens of this step. */
  tokens: number;
  /** Wall seconds of this step. */
  seconds: number;
}
