/**
 * The figures of a run: the log lines Unsloth's users on MLX know, metrics.jsonl, and the averages between two lines.
 * Losses are means over trained tokens, in nats; memory is in decimal GB; tokens/s counts tokens without padding.
 * @module
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import type { StepMetrics } from "./types.ts";

/** What one log line says; averages are over the steps since the last line. */
export interface TrainFigures {
  readonly step: number;
  /** Mean of the steps' losses. */
  readonly loss: number;
  /** Gradient norm of the last step, before clipping. */
  readonly gradNorm: number;
  /** Learning rate of the last step. */
  readonly lr: number;
  readonly stepsPerSecond: number;
  /** All tokens, padding not counted. */
  readonly tokensPerSecond: number;
  /** Tokens that had a loss, since the run's first step. */
  readonly trainedTokens: number;
  /** Most bytes in use on the device so far. */
  readonly peakBytes: number;
  readonly epoch: number;
}

/** One evaluation. */
export interface EvalFigures {
  readonly step: number;
  readonly loss: number;
  readonly seconds: number;
  /** Trained tokens of the held-out rows. */
  readonly tokens: number;
}

/** `Iter 10: Train loss 2.123, Learning Rate 1.000e-05, It/sec 0.580, …` */
export function trainLine(f: TrainFigures): string {
  return `Iter ${f.step}: Train loss ${f.loss.toFixed(3)}, Learning Rate ${exponent(f.lr)}, ` +
    `It/sec ${f.stepsPerSecond.toFixed(3)}, Tokens/sec ${f.tokensPerSecond.toFixed(3)}, ` +
    `Trained Tokens ${f.trainedTokens}, Peak mem ${(f.peakBytes / 1e9).toFixed(3)} GB`;
}

/** `Iter 10: Val loss 2.001, Val took 1.234s` */
export function evalLine(f: EvalFigures): string {
  return `Iter ${f.step}: Val loss ${f.loss.toFixed(3)}, Val took ${f.seconds.toFixed(3)}s`;
}

/** Python's `.3e`: two digits of exponent at least. */
function exponent(x: number): string {
  return x.toExponential(3).replace(/e([+-])(\d)$/, "e$10$2");
}

/** Gathers steps until a line is due. */
export class Meter {
  #losses: number[] = [];
  #seconds = 0;
  #tokens = 0;
  #last: StepMetrics | null = null;
  #trainedTokens: number;

  /** @param trainedTokens tokens trained before (a resumed run) */
  constructor(trainedTokens = 0) {
    this.#trainedTokens = trainedTokens;
  }

  /** Adds one step; `tokens` are all its tokens, trained or not, without padding. */
  add(m: StepMetrics, tokens: number): void {
    this.#losses.push(m.loss);
    this.#seconds += m.seconds;
    this.#tokens += tokens;
    this.#trainedTokens += m.tokens;
    this.#last = m;
  }

  /** The figures since the last call, and starts anew. null when no step was added. */
  take(peakBytes: number, epoch: number): TrainFigures | null {
    const last = this.#last;
    if (!last) return null;
    const steps = this.#losses.length, seconds = Math.max(this.#seconds, 1e-9);
    const figures = {
      step: last.step,
      loss: this.#losses.reduce((a, b) => a + b, 0) / steps,
      gradNorm: last.gradNorm,
      lr: last.lr,
      stepsPerSecond: steps / seconds,
      tokensPerSecond: this.#tokens / seconds,
      trainedTokens: this.#trainedTokens,
      peakBytes,
      epoch,
    };
    this.#losses = [];
    this.#seconds = this.#tokens = 0;
    this.#last = null;
    return figures;
  }
}

/** metrics.jsonl: one object a line, `{"step":1,"loss":…}` for a step, `{"step":1,"evalLoss":…}` for an evaluation. */
export class MetricsFile {
  readonly path: string;

  /**
   * Starts the file, or continues it after `step`: lines of later steps, which a killed run left, are dropped.
   * @param step 0 for a new run
   */
  constructor(path: string, step = 0) {
    this.path = path;
    writeFileSync(path, readMetrics(path).filter((m) => step > 0 && m.step <= step).map(line).join(""));
  }

  /** One step. */
  step(m: StepMetrics): void {
    appendFileSync(this.path, line({ ...m }));
  }

  /** One evaluation. */
  evaluation(f: EvalFigures): void {
    appendFileSync(this.path, line({ step: f.step, evalLoss: f.loss, seconds: f.seconds, tokens: f.tokens }));
  }
}

function line(value: unknown): string {
  return JSON.stringify(value) + "\n";
}

/** One line of metrics.jsonl. */
export type MetricsLine = { step: number; loss?: number; evalLoss?: number } & Record<string, number | undefined>;

/** The lines of metrics.jsonl; a last line that a killed process cut off is left out. */
export function readMetrics(path: string): MetricsLine[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.slice(0, -1).filter((l) => l !== "").map((l) => JSON.parse(l));
}
