/**
 * How long does a device wait for the host between two steps of a training run? The whole run, but for a device that computes
 * nothing and is busy for some milliseconds a step: from the read of one step to the next launch. And what a turn of the event
 * loop costs, which lies in between. Ceiling: 0.
 *
 *   deno run -A bench/between_steps.ts [--model models/embedded/unsloth-tiny.Q8_0.gguf] [--dataset models/embedded/instructions.jsonl]
 *     [--busy 60] [--steps 60]
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setImmediate, setTimeout } from "node:timers";
import { parseArgs } from "node:util";
import type { Graph } from "../src/core/backend.ts";
import { RecordingBackend } from "../src/core/recording.ts";
import type { Tensor } from "../src/core/tensor.ts";
import { turn } from "../src/core/turn.ts";
import { openDataset, prepare } from "../src/data/mod.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { loadTokenizer } from "../src/tokenizer/mod.ts";
import { train } from "../src/train/trainer.ts";
import { LORA } from "./llama_3b.ts";
import { median } from "./meter.ts";

const { values: o } = parseArgs({
  args: process.argv.slice(2),
  options: {
    model: { type: "string", default: "models/embedded/unsloth-tiny.Q8_0.gguf" },
    dataset: { type: "string", default: "models/embedded/instructions.jsonl" },
    busy: { type: "string", default: "60" },
    steps: { type: "string", default: "60" },
  },
});

/** Busy for `ms` after each launch; a read waits for that. */
class Idle extends RecordingBackend {
  readonly waits: number[] = [];
  readonly #ms: number;
  #until = 0;
  #read = 0;

  constructor(ms: number) {
    super();
    this.#ms = ms;
  }

  override capture(_: () => void): Graph {
    const launch = (): void => {
      const now = performance.now();
      if (this.#read > 0) this.waits.push(now - this.#read);
      this.#read = 0;
      this.#until = Math.max(this.#until, now) + this.#ms;
    };
    return { launch, close: () => {} };
  }

  override async download(_: Tensor, dst: ArrayBufferView): Promise<void> {
    await Promise.resolve();
    while (performance.now() < this.#until);
    new Uint8Array(dst.buffer, dst.byteOffset, dst.byteLength).fill(0);
    this.#read = performance.now();
    this.take(); // the calls are of no interest
  }
}

/** Median milliseconds of a pause, after as much work as a step. */
async function pause(how: () => Promise<unknown>): Promise<string> {
  const times: number[] = [];
  for (let i = 0; i < 20; i++) {
    for (const from = performance.now(); performance.now() - from < Number(o.busy););
    const start = performance.now();
    await how();
    times.push(performance.now() - start);
  }
  return median(times).toFixed(2);
}

const be = new Idle(Number(o.busy)), source = openModel(o.model), dir = mkdtempSync(join(tmpdir(), "between-steps-"));
const maxLength = Math.min(2048, source.config.maxPos);
const { rows } = await prepare(await openDataset(o.dataset), loadTokenizer(o.model), { maxLength });
const model = await loadModel(source, {
  ...{ backend: be, maxLength },
  lora: LORA,
});
await train({
  ...{ model, rows, heldOut: null, smoothing: 0, evalBatchSize: 1, evalEvery: 0, patience: 0, logEvery: 1, dir },
  ...{ saveEvery: 0, keep: 1, resume: false, tensorboard: false, settings: {} },
  feed: { batchSize: 4, seed: 5, accumulation: 1, packTo: 2048 },
  optim: {
    ...{ name: "adamw_torch", lr: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    ...{ schedule: "constant", warmupSteps: 0, totalSteps: Number(o.steps) },
  },
});
rmSync(dir, { recursive: true });
console.log(
  `from a step's read to the next launch ${median(be.waits.slice(10)).toFixed(2)} ms (median of ${
    be.waits.length - 10
  })`,
);
const timer = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 1));
console.log(
  `a turn ${await pause(turn)} ms; setImmediate ${await pause(() => new Promise((r) => void setImmediate(r)))}, ` +
    `a timer ${await pause(timer)}`,
);
process.exit(0);
