/**
 * What does --adaptive_rank bring? Held-out loss of SmolLM2-135M on 300 rows of alpaca_en_demo, against fixed ranks with
 * the same scale: the target (as many parameters at the end) and the start (as many at the beginning).
 *
 *   deno run -A bench/adaptive_rank.ts [--steps 60] [--r 16] [--target 8] [--lr 2e-4] [--seeds 1,2] [--threads 2]
 *     [--rows 300] [--held-out 40] [--length 256] [--batch 4] [--model FILE] [--data FILE] [--only fixed-target,fixed-start,adaptive]
 *     [--backend wasm]     (any that train takes)
 *
 * Every run sees the same rows in the same order for the same seed. Timings are the machine's, perhaps shared; losses are
 * not disturbed by that.
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { selectBackend } from "../ffi/select.ts";
import { BACKENDS } from "../mod.ts";
import type { Backend } from "../src/core/backend.ts";
import { openDataset, prepare, type Rows, selectRows, splitRows } from "../src/data/mod.ts";
import { adapterParts } from "../src/formats/adapter.ts";
import { blockLinears, loadModel, type LoraOptions, openModel, readAdapter } from "../src/models/mod.ts";
import { loadTokenizer } from "../src/tokenizer/mod.ts";
import { defaultInterval, type RankFigures, train } from "../src/train/mod.ts";

const flags = {
  model: { type: "string", default: "../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf" },
  data: { type: "string", default: "../shared/data/alpaca_en_demo.json" },
  steps: { type: "string", default: "60" },
  r: { type: "string", default: "16" },
  target: { type: "string", default: "8" },
  lr: { type: "string", default: "2e-4" },
  seeds: { type: "string", default: "1,2" },
  rows: { type: "string", default: "300" },
  "held-out": { type: "string", default: "40" },
  length: { type: "string", default: "256" },
  batch: { type: "string", default: "4" },
  threads: { type: "string", default: "2" },
  backend: { type: "string", default: "wasm" },
  only: { type: "string", default: "fixed-target,fixed-start,adaptive" },
} as const;

const { values: o } = parseArgs({ args: process.argv.slice(2), options: flags });
const ROWS = Number(o.rows), HELD_OUT = Number(o["held-out"]), LENGTH = Number(o.length), BATCH = Number(o.batch);
const steps = Number(o.steps), start = Number(o.r), target = Number(o.target);

/** One run's figures. */
interface Outcome {
  readonly before: number;
  readonly after: number;
  readonly seconds: number;
  readonly parameters: number;
  /** Ranks by kind of linear, mean over the layers. */
  readonly ranks: Record<string, string>;
}

async function measure(be: Backend, rows: Rows, heldOut: Rows, name: string, seed: number): Promise<Outcome> {
  const source = openModel(o.model), r = name === "fixed-target" ? target : start;
  const lora: LoraOptions = {
    ...{ r, alpha: r, rslora: false, dora: false, dropout: 0, targetModules: blockLinears(source.config) }, // scale 1
    ...{ rankPattern: {}, alphaPattern: {}, modulesToSave: [], bias: "none", baseModel: null, seed },
  };
  const dir = mkdtempSync(join(tmpdir(), "unsloth-adaptive-"));
  const model = await loadModel(source, { backend: be, lora, checkpoint: false, maxLength: LENGTH });
  const told = ({ step, mean, least, most }: RankFigures) =>
    console.log(`  step ${step}: rank ${mean.toFixed(2)} on average, ${least} to ${most}`);
  const result = await train({
    ...{ model, rows, heldOut, feed: { batchSize: BATCH, seed, accumulation: 1 }, smoothing: 0 },
    optim: {
      ...{ name: "adamw_torch", lr: Number(o.lr), betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
      ...{ schedule: "linear", warmupSteps: 5, totalSteps: steps },
    },
    adaptiveRank: name === "adaptive" ? { target, every: defaultInterval(steps) } : null,
    ...{ evalBatchSize: 4, evalEvery: 0, patience: 0, logEvery: 10, dir, saveEvery: 0, keep: 1, resume: false },
    ...{ tensorboard: false, settings: {}, on: (e) => e.kind === "ranks" ? told(e.figures) : undefined },
  });
  const parts = [...adapterParts(await readAdapter(model)).pairs];
  const kinds = [...new Set(parts.map(([module]) => module.split(".").at(-1)!))];
  const ranks = Object.fromEntries(kinds.map((kind) => {
    const list = parts.flatMap(([module, p]) => module.endsWith(kind) ? [p.rank] : []);
    return [kind, (list.reduce((a, b) => a + b, 0) / list.length).toFixed(1)];
  }));
  const parameters = parts.reduce((n, [, p]) => n + p.rank * (p.inputs + p.outputs), 0);
  model.close();
  source.close();
  rmSync(dir, { recursive: true });
  const [first, last] = [result.evaluations[0], result.evaluations.at(-1)!];
  return { before: first.loss, after: last.loss, seconds: result.seconds, parameters, ranks };
}

const be = await selectBackend({
  ...{ backend: o.backend, candidates: BACKENDS, threads: Number(o.threads) },
  ...{ actDtype: o.backend === "wasm" ? "f32" : "bf16", log: console.log },
});
const tokenizer = loadTokenizer(o.model);
const all = (await prepare(await openDataset(o.data), tokenizer, { maxLength: LENGTH })).rows;
const first = selectRows(all, Array.from({ length: Math.min(all.length, ROWS) }, (_, i) => i));
const { train: rows, eval: heldOut } = splitRows(first, HELD_OUT, 3407);
console.log(
  `${be.device}; ${rows.length} rows of up to ${LENGTH} tokens, ${heldOut.length} held out, ${steps} steps of ${BATCH} rows`,
);
for (const seed of o.seeds.split(",").map(Number)) {
  for (const name of o.only.split(",")) {
    const { before, after, seconds, parameters, ranks } = await measure(be, rows, heldOut, name, seed);
    console.log(
      `${name.padEnd(13)} seed ${seed}: held-out loss ${before.toFixed(4)} -> ${after.toFixed(4)}, ` +
        `${(parameters / 1e6).toFixed(3)}M parameters at the end, ${(seconds / steps).toFixed(2)} s a step, ` +
        `ranks ${JSON.stringify(ranks)}`,
    );
  }
}
be.close();
