/**
 * The run: steps, evaluations, checkpoints, and what is told about them. It prints nothing; who calls it listens.
 * @module
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { closeAll } from "../core/close.ts";
import { BackendError, ConfigError, DataError } from "../core/errors.ts";
import type { Backend } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import { turn } from "../core/turn.ts";
import { batches } from "../data/mod.ts";
import type { Rows } from "../data/types.ts";
import type { Model } from "../models/load.ts";
import { AdaptiveRank, type AdaptiveRankOptions, type RankFigures } from "./adaptive_rank.ts";
import { type EarlyStop, EarlyStopper } from "./early_stop.ts";
import { feed, type FeedOptions, type Place, type StepBatches, stepsPerEpoch } from "./feed.ts";
import { type EvalFigures, Meter, MetricsFile, type TrainFigures } from "./metrics.ts";
import { createOptimizer } from "./optimizers.ts";
import type { PassOptions } from "./pass.ts";
import { learningRate } from "./schedule.ts";
import { downloadState, uploadState } from "./snapshot.ts";
import {
  checkSettings,
  clearCheckpoints,
  clearLeftovers,
  latestCheckpoint,
  readCheckpoint,
  type RunState,
  saveCheckpoint,
} from "./state.ts";
import { type StagedStep, Stepper } from "./step.ts";
import { EventFile } from "./tensorboard.ts";
import type { Optimizer, OptimOptions, StepMetrics } from "./types.ts";

/** What a run is made of. */
export interface TrainRun {
  /** Loaded with adapters, or for full training. */
  readonly model: Model;
  readonly rows: Rows;
  /** Held-out rows; null: no evaluation. */
  readonly heldOut: Rows | null;
  readonly feed: FeedOptions;
  readonly optim: OptimOptions;
  readonly smoothing: number;
  /** NEFTune's alpha; absent or 0: no noise. */
  readonly neftune?: number;
  /** How ranks are lowered (adaptive_rank.ts); absent or null: they stay. */
  readonly adaptiveRank?: AdaptiveRankOptions | null;
  /** Rows a batch of the evaluation. */
  readonly evalBatchSize: number;
  /** Steps between evaluations; 0: before the first step and after the last. */
  readonly evalEvery: number;
  /** Evaluations without a better loss after which to stop; 0: never. */
  readonly patience: number;
  /** Steps a log line. */
  readonly logEvery: number;
  /** Folder of checkpoints and metrics; made if need be. */
  readonly dir: string;
  /** Steps between checkpoints; 0: only when interrupted. */
  readonly saveEvery: number;
  /** Checkpoints kept. */
  readonly keep: number;
  /** Go on from the newest checkpoint in `dir`. */
  readonly resume: boolean;
  /** Write TensorBoard event files under dir/runs. */
  readonly tensorboard: boolean;
  /** What must be the same for a continued run to be the same run. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Aborted: save a checkpoint after the step that runs, and stop. */
  readonly signal?: AbortSignal;
  readonly on?: (event: TrainEvent) => void;
}

/** What happens in a run, in order. */
export type TrainEvent =
  | { readonly kind: "resume"; readonly step: number; readonly path: string }
  | { readonly kind: "step"; readonly metrics: StepMetrics; readonly steps: number }
  | { readonly kind: "log"; readonly figures: TrainFigures }
  | { readonly kind: "eval"; readonly figures: EvalFigures }
  | { readonly kind: "saved"; readonly step: number; readonly path: string }
  | { readonly kind: "ranks"; readonly figures: RankFigures }
  | { readonly kind: "early stop"; readonly stop: EarlyStop };

/** How a run ended. */
export interface TrainResult {
  /** Steps done, over all sessions of the run. */
  readonly steps: number;
  readonly ended: "done" | "interrupted" | "early stop";
  readonly trainedTokens: number;
  /** Seconds of training, over all sessions. */
  readonly seconds: number;
  /** Held-out losses of this session, in order. */
  readonly evaluations: readonly EvalFigures[];
  /** Loss of the last step. */
  readonly loss: number;
  /** With early stopping the evaluation whose weights the model holds, where they are not the last step's. */
  readonly kept: { readonly step: number; readonly loss: number } | null;
  /** Bytes on the device at their most. */
  readonly peakBytes: number;
}

/** The pass that every batch of the run fits into. */
export function passOptions(
  run: Pick<TrainRun, "rows" | "heldOut" | "feed" | "evalBatchSize" | "smoothing" | "neftune">,
): PassOptions {
  const train = bounds(run.rows, run.feed.batchSize, run.feed.packTo ?? null);
  const held = run.heldOut ? bounds(run.heldOut, run.evalBatchSize, null) : train;
  return {
    maxTokens: Math.max(train.tokens, held.tokens),
    trainTokens: train.tokens,
    maxSequences: Math.max(train.sequences, held.sequences),
    maxLength: Math.max(train.length, held.length),
    smoothing: run.smoothing,
    ...(run.neftune ? { neftune: run.neftune } : {}),
  };
}

/** Most tokens and sequences of a micro-batch, and the longest row. */
function bounds(
  rows: Rows,
  batchSize: number,
  packTo: number | null,
): { tokens: number; sequences: number; length: number } {
  const lengths = Array.from({ length: rows.length }, (_, i) => rows.tokens(i)).sort((a, b) => b - a);
  const sum = lengths.slice(0, batchSize).reduce((a, b) => a + b, 0);
  if (packTo === null) return { tokens: sum, sequences: Math.min(batchSize, rows.length), length: lengths[0] };
  const all = lengths.reduce((a, b) => a + b, 0), shortest = lengths[lengths.length - 1];
  const tokens = Math.min(all, batchSize * Math.max(packTo, lengths[0]));
  return { tokens, sequences: Math.min(rows.length, Math.ceil(tokens / shortest)), length: lengths[0] };
}

/** Trains. The model holds the result; with early stopping, the best evaluation's. */
export async function train(run: TrainRun): Promise<TrainResult> {
  mkdirSync(run.dir, { recursive: true });
  const { be } = run.model, optimizer = createOptimizer(be, run.model.params!, run.optim);
  let stepper: Stepper | null = null, ranks: AdaptiveRank | null = null, failure: unknown;
  try {
    ranks = adaptRanks(run, optimizer);
    stepper = new Stepper(run.model, optimizer, passOptions(run));
    return await new Training(run, stepper, optimizer, ranks).go();
  } catch (e) {
    failure = e instanceof BackendError ? withCheckpoint(e, run.dir) : e;
    throw failure;
  } finally {
    closeAll([ranks, stepper, optimizer], failure);
  }
}

/** A backend that fails in mid-run is not called again: what it computed cannot be trusted. Only checkpoints are good. */
function withCheckpoint(e: BackendError, dir: string): BackendError {
  const last = latestCheckpoint(dir);
  const way = last
    ? `${last} is intact, and --resume goes on from there`
    : "no checkpoint was saved; --save_steps makes them";
  return new BackendError(`${e.message}; ${way}`, e.op, e.status, e.device);
}

function adaptRanks({ model, optim, adaptiveRank }: TrainRun, optimizer: Optimizer): AdaptiveRank | null {
  if (!adaptiveRank) return null;
  if (model.first.size) {
    throw new ConfigError("Cannot adapt ranks: PiSSA's directions hold a part of the frozen weights");
  }
  return new AdaptiveRank(model.be, model.params!, optimizer, optim, adaptiveRank);
}

/** A step's batches as the device takes them. */
interface Upcoming extends StepBatches {
  readonly staged: StagedStep;
}

/** One session of a run. */
class Training {
  readonly #run: TrainRun;
  readonly #stepper: Stepper;
  readonly #optimizer: Optimizer;
  readonly #ranks: AdaptiveRank | null;
  readonly #be: Backend;
  readonly #stopper: EarlyStopper;
  readonly #evaluations: EvalFigures[] = [];
  readonly #epochSteps: number;
  #file!: MetricsFile;
  #events: EventFile | null = null;
  #meter!: Meter;
  #step = 0;
  #place: Place = { epoch: 0, micro: 0 };
  #trainedTokens = 0;
  #seconds = 0;
  #loss = NaN;

  constructor(run: TrainRun, stepper: Stepper, optimizer: Optimizer, ranks: AdaptiveRank | null) {
    this.#run = run;
    this.#stepper = stepper;
    this.#optimizer = optimizer;
    this.#ranks = ranks;
    this.#be = run.model.be;
    this.#stopper = new EarlyStopper(run.patience, join(run.dir, "best.safetensors"));
    this.#epochSteps = stepsPerEpoch(run.rows, run.feed);
  }

  async go(): Promise<TrainResult> {
    const run = this.#run, { totalSteps } = run.optim;
    this.#start();
    if (this.#step === 0) {
      await this.#evaluate();
      // Nothing is trained yet that a checkpoint could hold.
      if (run.heldOut) run.signal?.throwIfAborted();
    }
    let ended: TrainResult["ended"] = "done";
    const steps = feed(run.rows, run.feed, this.#place);
    let ahead = this.#lookAhead(steps);
    while (this.#step < totalSteps) {
      const now = ahead();
      await this.#train(now, () => {
        if (this.#step + 1 < totalSteps) ahead = this.#lookAhead(steps);
      });
      await turn();
      if (await this.#afterStep()) {
        ended = "early stop";
        break;
      }
      if (run.signal?.aborted) {
        if (this.#step < totalSteps) ended = "interrupted";
        break;
      }
    }
    this.#log();
    const kept = ended === "interrupted" ? await this.#save() : await this.#finish();
    const { peak } = this.#be.memory();
    return {
      ...{ steps: this.#step, ended, trainedTokens: this.#trainedTokens, seconds: this.#seconds },
      ...{ evaluations: this.#evaluations, loss: this.#loss, kept, peakBytes: peak },
    };
  }

  /** From the newest checkpoint, or from nothing. */
  #start(): void {
    const { dir, resume, model, settings } = this.#run;
    const path = resume ? latestCheckpoint(dir) : null;
    clearLeftovers(dir);
    if (resume && !path) throw new DataError(`Cannot resume: there is no checkpoint in ${dir}`);
    if (path) {
      const { state, params, moments } = readCheckpoint(path);
      checkSettings(path, state.settings, settings);
      uploadState(this.#be, model.params!.list, this.#moments(), params, moments, path);
      this.#restore(state);
      this.#run.on?.({ kind: "resume", step: state.step, path });
    } else {
      clearCheckpoints(dir);
      this.#stopper.clear();
    }
    this.#file = new MetricsFile(join(dir, "metrics.jsonl"), this.#step);
    this.#events = this.#run.tensorboard ? new EventFile(join(dir, "runs")) : null;
    this.#meter = new Meter(this.#trainedTokens);
  }

  /** What a checkpoint holds of the device besides the trained tensors. */
  #moments(): Map<string, Tensor> {
    return new Map([...this.#optimizer.state(), ...this.#ranks?.state() ?? []]);
  }

  #restore(s: RunState): void {
    this.#step = s.step;
    this.#ranks?.restore(s.ranks ?? {});
    this.#place = { epoch: s.epoch, micro: s.micro };
    this.#trainedTokens = s.trainedTokens;
    this.#seconds = s.seconds;
    this.#stopper.restore(s.best, s.worse);
  }

  /** The next step's batches, laid out; what is wrong with them is told when their turn comes. */
  #lookAhead(steps: Iterator<StepBatches, never>): () => Upcoming {
    try {
      const batches = steps.next().value, upcoming = { ...batches, staged: this.#stepper.stage(batches.micro) };
      return () => upcoming;
    } catch (e) {
      return () => {
        throw e;
      };
    }
  }

  async #train({ micro, records, next, staged }: Upcoming, meanwhile: () => void): Promise<void> {
    const { optim, feed: { seed } } = this.#run, t = this.#step + 1, lr = learningRate(optim, t);
    const started = performance.now();
    const { loss, gradNorm, tokens } = await this.#stepper.step(staged, { lr, t, seed }, meanwhile);
    const seconds = (performance.now() - started) / 1000;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) throw this.#notFinite(t, loss, gradNorm, records);
    this.#step = t;
    this.#place = next;
    this.#trainedTokens += tokens;
    this.#seconds += seconds;
    this.#loss = loss;
    const metrics = { step: t, loss, gradNorm, lr, tokens, seconds };
    this.#file.step(metrics);
    this.#meter.add(metrics, micro.reduce((n, b) => n + b.ids.length, 0));
    this.#run.on?.({ kind: "step", metrics, steps: optim.totalSteps });
    const figures = await this.#ranks?.afterStep(t);
    if (figures) this.#run.on?.({ kind: "ranks", figures });
  }

  /** The step's update has been made by the time its loss is read, so the weights are spoilt: only checkpoints are good. */
  #notFinite(step: number, loss: number, gradNorm: number, records: readonly number[]): DataError {
    const last = latestCheckpoint(this.#run.dir);
    return new DataError(
      `Cannot go on: at step ${step} the loss is ${loss} and the gradient norm ${gradNorm}, in a batch of the records ` +
        `${records.map((r) => r + 1).join(", ")}; ${
          last ? `${last} is intact` : "no checkpoint was saved"
        }; lower --learning_rate, or look at ` +
        "these records",
    );
  }

  /** @returns whether to stop early */
  async #afterStep(): Promise<boolean> {
    const { logEvery, evalEvery, saveEvery, optim: { totalSteps }, on } = this.#run, step = this.#step;
    if (step % logEvery === 0) this.#log();
    let stop = false;
    if (evalEvery > 0 && step % evalEvery === 0 && step < totalSteps) {
      const figures = await this.#evaluate();
      const verdict = figures ? await this.#stopper.judge(figures, this.#run.model) : null;
      if (verdict) on?.({ kind: "early stop", stop: verdict });
      stop = verdict !== null;
    }
    if (saveEvery > 0 && step % saveEvery === 0) await this.#save();
    return stop;
  }

  #log(): void {
    const epoch = this.#place.epoch + this.#place.micro / this.#run.feed.accumulation / this.#epochSteps;
    const figures = this.#meter.take(this.#be.memory().peak, epoch);
    if (!figures) return;
    this.#run.on?.({ kind: "log", figures });
    const { loss, lr, gradNorm } = figures;
    this.#events?.scalars(figures.step, {
      ...{ "train/loss": loss, "train/learning_rate": lr, "train/grad_norm": gradNorm, "train/epoch": epoch },
      ...{ "train/tokens_per_second": figures.tokensPerSecond },
    });
  }

  /** Mean loss over the trained tokens of the held-out rows; null without any, and when interrupted. */
  async #evaluate(): Promise<EvalFigures | null> {
    const { heldOut, evalBatchSize, signal } = this.#run;
    if (!heldOut) return null;
    this.#log();
    const started = performance.now();
    let sum = 0, tokens = 0;
    for (const batch of batches(heldOut, { batchSize: evalBatchSize, seed: 0, shuffle: false })) {
      await turn();
      if (signal?.aborted) return null;
      const e = await this.#stepper.evaluate(batch);
      sum += e.loss * e.tokens;
      tokens += e.tokens;
    }
    const figures = { step: this.#step, loss: sum / tokens, seconds: (performance.now() - started) / 1000, tokens };
    this.#evaluations.push(figures);
    this.#file.evaluation(figures);
    this.#events?.scalars(this.#step, { "eval/loss": figures.loss });
    this.#run.on?.({ kind: "eval", figures });
    return figures;
  }

  /** The last evaluation, and with early stopping the best weights. @returns whose they are, if not the last step's */
  async #finish(): Promise<TrainResult["kept"]> {
    if (this.#evaluations.at(-1)?.step !== this.#step) {
      const figures = await this.#evaluate();
      if (figures) await this.#stopper.judge(figures, this.#run.model);
    }
    this.#stopper.takeBest(this.#run.model);
    const { best } = this.#stopper;
    return best && best.step !== this.#step ? best : null;
  }

  async #save(): Promise<null> {
    const { dir, keep, model, settings } = this.#run;
    const { params, moments } = await downloadState(this.#be, model.params!.list, this.#moments());
    const state: RunState = {
      ...{ version: 1, step: this.#step, ...this.#place, trainedTokens: this.#trainedTokens, seconds: this.#seconds },
      ...{ best: this.#stopper.best, worse: this.#stopper.worse, settings },
      ranks: this.#ranks?.ranks ?? null,
    };
    const path = await saveCheckpoint(dir, { state, params, moments }, keep);
    this.#run.on?.({ kind: "saved", step: this.#step, path });
    return null;
  }
}
