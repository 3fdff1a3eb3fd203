/**
 * One optimiser step: gradients zeroed, each micro-batch's forward and backward, the norm, the update; then the only two
 * numbers that are read. Each token's weight is divided by the trained tokens of all micro-batches together (a mean of
 * means is wrong when lengths differ; torchtune's rule).
 * @module
 */
import type { Graph } from "../core/backend.ts";
import { DataError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Batch } from "../data/types.ts";
import type { Model } from "../models/load.ts";
import { type Inputs, Pass, type PassOptions, shapeOf } from "./pass.ts";
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
   * weights are divided by the sum of all of them.
   */
  readonly normalize?: boolean;
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
  #sumSq: Tensor;

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
    this.#sumSq = { handle: be.alloc(4), byteOffset: 0, dtype: "f32", shape: [1] };
  }

  /**
   * One optimiser step over micro-batches.
   * @throws {DataError} when no token is trained, or a batch is larger than planned
   */
  async step(micro: readonly Batch[], s: StepInput): Promise<StepResult> {
    const { optimizer } = this;
    if (!optimizer) throw new DataError("Cannot train: there is no optimiser");
    optimizer.begin(s.lr, s.t);
    const tokens = this.#accumulate(micro, s);
    this.#launch("update", () => {
      this.#norm();
      optimizer.step(this.#sumSq);
    });
    return await this.#result(tokens);
  }

  /** The gradients of a step without its update: they are left in the parameters' `grad`. */
  async gradients(micro: readonly Batch[], s: Omit<StepInput, "lr">): Promise<StepResult> {
    const tokens = this.#accumulate(micro, s);
    this.#norm();
    return await this.#result(tokens);
  }

  /** Gradients of all micro-batches, from zero; returns the number of trained tokens. */
  #accumulate(micro: readonly Batch[], s: Omit<StepInput, "lr">): number {
    const { be, params } = this.model, { tokens, sum } = countTokens(micro);
    if (!params) throw new DataError("Cannot train: the model was loaded for inference");
    if (tokens === 0) throw new DataError("Cannot train on this batch: no token has a weight, all are masked");
    const divisor = s.normalize ?? true ? sum : 1;
    for (const slab of params.slabs) be.fill(slab.grad, 0);
    be.fill(this.pass.lossSum, 0);
    micro.forEach((b, i) => {
      const inputs = this.pass.upload(b, b.weights.map((w) => w / divisor), [s.seed ?? 0, s.t * 256 + i]);
      this.#launch(`pass ${shapeOf(inputs)}`, () => this.pass.train(inputs));
    });
    return tokens;
  }

  #norm(): void {
    this.model.be.fill(this.#sumSq, 0);
    for (const slab of this.model.params!.slabs) this.model.be.sumSquares(this.#sumSq, slab.grad);
  }

  async #result(tokens: number): Promise<StepResult> {
    const loss = await this.#read(this.pass.lossSum);
    return { loss, gradNorm: Math.sqrt(await this.#read(this.#sumSq)), tokens };
  }

  /**
   * Losses without training.
   * @param o.adapters false: the model without its adapters. Default true
   */
  async evaluate(b: Batch, o: { adapters?: boolean } = {}): Promise<Evaluation> {
    return await this.#evaluate(this.pass.upload(b), b.ids.length, o.adapters ?? true);
  }

  /**
   * Losses of the model as it is trained (the policy) and without its adapters (the reference), from one upload: what DPO,
   * KTO and GRPO are made of. Their gradients are those of `step` with `normalize: false` and -dL/d log p as the weights.
   */
  async compare(b: Batch): Promise<{ policy: Evaluation; reference: Evaluation }> {
    const inputs = this.pass.upload(b), policy = await this.#evaluate(inputs, b.ids.length, true);
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

  async #read(t: Tensor): Promise<number> {
    const out = new Float32Array(1);
    await this.model.be.download(t, out);
    return out[0];
  }

  /** Gives back arenas and graphs; model and optimiser are the caller's. */
  close(): void {
    for (const g of this.#graphs.values()) g?.close();
    this.#graphs.clear();
    this.pass.close();
    this.model.be.free(this.#sumSq.handle);
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
