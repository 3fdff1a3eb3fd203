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
  /** Finer settings of a schedule, transformers' lr_scheduler_kwargs. */
  scheduleArgs?: ScheduleArgs;
  /**
   * B's learning rate is A's times this (LoRA+, Hayou et al. 2024), and that of all vectors; biases then do not decay, as
   * in peft. Absent or 1: off.
   */
  loraPlusRatio?: number;
  /** With LoRA+, the learning rate of adapters on the embedding, which follows the schedule. Default peft's 1e-6. */
  loraPlusEmbeddingRate?: number;
  /** false: norm weights and biases do not decay, as in transformers' Trainer. Default true: torch's one group. */
  decayVectors?: boolean;
  /** sgd: default 0. */
  momentum?: number;
}

/** lr_scheduler_kwargs, with transformers' defaults where absent. */
export interface ScheduleArgs {
  /** cosine 0.5, cosine_with_restarts 1, warmup_stable_decay 0.5. */
  numCycles?: number;
  /** polynomial: 1. */
  power?: number;
  /** polynomial: 1e-7, an absolute learning rate. */
  lrEnd?: number;
  /** inverse_sqrt: the warm-up, or 10,000 without one. */
  timescale?: number;
  /** warmup_stable_decay has none in transformers; here a tenth of all steps. */
  numDecaySteps?: number;
  /** warmup_stable_decay: all between warm-up and decay. */
  numStableSteps?: number;
  warmupType?: "linear" | "cosine" | "1-sqrt";
  decayType?: "linear" | "cosine" | "1-sqrt";
  minLrRatio?: number;
}

/** An optimiser over device parameters; everything that changes a step lives in a device tensor. */
export interface Optimizer {
  /** Uploads learning rate and bias corrections of step `t` (1-based); called outside the captured step. */
  begin(lr: number, t: number): void;
  /** Launches clip factor and updates; `sumSq` is the squared norm of all gradients. */
  step(sumSq: Tensor /* f32 [1] */): void;
  /** Moments by name, for saving and resuming: read and written in place. */
  state(): Map<string, Tensor>;
  readonly params: readonly Param[];
  close(): void;
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
