/**
 * One optimiser step: gradients zeroed, each micro-batch's forward and backward, the norm, the update; then the only two
 * numbers that are read. Each token's weight is divided by the trained tokens of all micro-batches together (a mean of
 * means is wrong when lengths differ; torchtune's rule).
 * @module
 */
import type { Graph } from "../core/backend.ts";
import { DataError } from "../core/errors.ts";
import { slice } from "../core/tensor.ts";
import type { Batch } from "../data/types.ts";
import type { Model } from "../models/load.ts";
import { type Inputs, Pass, type PassOptions, shapeOf, type Staged } from "./pass.ts";
import { planArena } from "./plan.ts";
import type { Optimizer } from "./types.ts";

/** What changes from step to step. */
export interface StepInput {
  /** Learning rate. */
  readonly lr: number;
  /** 1-based number of the step; with the micro-batch's index it seeds dropout and noise. */
  readonly t: number;
  /** Seed of the run. Default 0. */
  readonly seed?: number;
  /**
   * false: the batches' weights are used as they are (DPO and its kin put their own gradients there). Default true:
   * weights are divided by the sum of all of them. Of a `StagedStep` this was decided before.
   */
  readonly normalize?: boolean;
}

/** The host's side of a step (`Stepper.stage`). */
export class StagedStep {
  readonly parts: readonly Staged[];
  /** Tokens with a weight other than 0. */
  readonly tokens: number;

  constructor(parts: readonly Staged[], tokens: number) {
    this.parts = parts;
    this.tokens = tokens;
  }
}

/** Figures of a step, read once it is done. */
export interface StepResult {
  /** Σ weight·loss: with `normalize`, the mean over trained tokens. */
  readonly loss: number;
  /** Norm of all gradients, before clipping. */
  readonly gradNorm: number;
  /** Tokens with a weight other than 0. */
  readonly tokens: number;
}

/** Losses of one batch without training. */
export interface Evaluation {
  /** Mean over tokens with a weight other than 0. */
  readonly loss: number;
  readonly tokens: number;
  /** -log p of each token's target, f32 [N]; 0 where the weight is 0. */
  readonly perToken: Float32Array;
}

/** Runs steps and evaluations over one model. */
export class Stepper {
  readonly pass: Pass;
  readonly #graphs = new Map<string, Graph | null>();
  readonly model: Model;
  readonly optimizer: Optimizer | null;

  /**
   * @param optimizer null: evaluation only
   * @throws {MemoryError} when the activations do not fit
   */
  constructor(model: Model, optimizer: Optimizer | null, o: PassOptions) {
    this.model = model;
    this.optimizer = optimizer;
    const { be, decoder } = model;
    this.pass = new Pass(be, decoder, o, planArena(model, o));
  }

  /**
   * Lays out a step's micro-batches; the device is not touched, and may be at work on another step.
   * @param normalize as `StepInput` says
   * @throws {DataError} when no token is trained, or a batch is larger than planned
   */
  stage(micro: readonly Batch[], normalize = true): StagedStep {
    if (!this.model.params) throw new DataError("Cannot train: the model was loaded for inference");
    const { tokens, sum } = countTokens(micro), divisor = normalize ? sum : 1;
    if (tokens === 0) throw new DataError("Cannot train on this batch: no token has a weight, all are masked");
    return new StagedStep(micro.map((b) => this.pass.stage(b, b.weights.map((w) => w / divisor))), tokens);
  }

  /**
   * One optimiser step over micro-batches.
   * @param meanwhile called while the device works: all is launched, and no result waited for
   * @throws {DataError} as `stage`
   */
  async step(micro: readonly Batch[] | StagedStep, s: StepInput, meanwhile?: () => void): Promise<StepResult> {
    const { optimizer } = this;
    if (!optimizer) throw new DataError("Cannot train: there is no optimiser");
    const staged = micro instanceof StagedStep ? micro : this.stage(micro, s.normalize);
    optimizer.begin(s.lr, s.t);
    this.#accumulate(staged, s);
    this.#launch("update", () => {
      this.#norm();
      optimizer.step(slice(this.pass.sums, 1, 2));
    });
    meanwhile?.();
    return await this.#result(staged);
  }

  /** The gradients of a step without its update: they are left in the parameters' `grad`. */
  async gradients(micro: readonly Batch[] | StagedStep, s: Omit<StepInput, "lr">): Promise<StepResult> {
    const staged = micro instanceof StagedStep ? micro : this.stage(micro, s.normalize);
    this.#accumulate(staged, s);
    this.#norm();
    return await this.#result(staged);
  }

  /** Gradients of all micro-batches, from zero. */
  #accumulate({ parts }: StagedStep, { seed = 0, t }: Omit<StepInput, "lr">): void {
    const { be, params } = this.model;
    for (const slab of params!.slabs) be.fill(slab.grad, 0);
    be.fill(slice(this.pass.sums, 0, 1), 0);
    parts.forEach((b, i) => {
      const inputs = this.pass.upload(b, [seed, t * 256 + i]);
      this.#launch(`pass ${shapeOf(inputs)}`, () => this.pass.train(inputs));
    });
  }

  #norm(): void {
    const { be, params } = this.model, sumSq = slice(this.pass.sums, 1, 2);
    be.fill(sumSq, 0);
    for (const slab of params!.slabs) be.sumSquares(sumSq, slab.grad);
  }

  async #result({ tokens }: StagedStep): Promise<StepResult> {
    const sums = new Float32Array(2);
    await this.model.be.download(this.pass.sums, sums);
    return { loss: sums[0], gradNorm: Math.sqrt(sums[1]), tokens };
  }

  /**
   * Losses without training.
   * @param o.adapters false: the model without its adapters. Default true
   */
  async evaluate(b: Batch, o: { adapters?: boolean } = {}): Promise<Evaluation> {
    return await this.#evaluate(this.pass.upload(this.pass.stage(b)), b.ids.length, o.adapters ?? true);
  }

  /**
   * Losses of the model as it is trained (the policy) and without its adapters (the reference), from one upload: what DPO,
   * KTO and GRPO are made of. Their gradients are those of `step` with `normalize: false` and -dL/d log p as the weights.
   */
  async compare(b: Batch): Promise<{ policy: Evaluation; reference: Evaluation }> {
    const inputs = this.pass.upload(this.pass.stage(b)), policy = await this.#evaluate(inputs, b.ids.length, true);
    return { policy, reference: await this.#evaluate(inputs, b.ids.length, false) };
  }

  async #evaluate(inputs: Inputs, n: number, adapters: boolean): Promise<Evaluation> {
    this.pass.evaluate(inputs, adapters);
    const losses = new Float32Array(inputs.loss.shape[0]), perToken = new Float32Array(n);
    await this.model.be.download(inputs.loss, losses);
    let loss = 0;
    inputs.trained.forEach((row, i) => loss += perToken[row] = losses[i]);
    const tokens = inputs.trained.length;
    return { loss: tokens ? loss / tokens : NaN, tokens, perToken };
  }

  /** Runs `work`; where the device has graphs the second call of a key is recorded and later ones replay it. */
  #launch(key: string, work: () => void): void {
    const graph = this.#graphs.get(key);
    if (graph) return graph.launch();
    if (graph === undefined && !this.#graphs.has(key)) {
      this.#graphs.set(key, null);
      return work();
    }
    const captured = this.model.be.capture(work);
    if (!captured) return work();
    this.#graphs.set(key, captured);
    captured.launch();
  }

  /** Gives back arenas and graphs; model and optimiser are the caller's. */
  close(): void {
    for (const g of this.#graphs.values()) g?.close();
    this.#graphs.clear();
    this.pass.close();
  }
}

/** Tokens that count, and the sum of their weights. */
function countTokens(micro: readonly Batch[]): { tokens: number; sum: number } {
  let tokens = 0, sum = 0;
  for (const b of micro) {
    for (const w of b.weights) {
      if (w === 0) continue;
      tokens++;
      sum += w;
    }
  }
  return { tokens, sum };
}

/**
 * Log-probability of each sequence of a batch, summed over its trained tokens: what DPO, ORPO, KTO and GRPO compare.
 * @returns f64 [S]
 */
export function sequenceLogProbs(b: Batch, e: Evaluation): Float64Array {
  const out = new Float64Array(b.cu.length - 1);
  for (let s = 0; s < out.length; s++) {
    for (let n = b.cu[s]; n < b.cu[s + 1]; n++) out[s] -= e.perToken[n];
  }
  return out;
}
