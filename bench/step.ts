/**
 * How fast is a LoRA step on the CPU, and where does the time go? SmolLM2-135M, r = 16 on all linears, 512 tokens a step,
 * checkpointing per block, AdamW. Ceiling: the rate of one of its own products on the same threads, measured before and
 * after every step, since other work on the machine slows both.
 *
 *   deno run -A bench/step.ts --model ../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf [--threads 2] [--steps 4]
 *     [--sequence 512] [--last 30] [--plain] [--ops]
 *
 * --sequence: tokens of each packed sequence; --last: blocks that get adapters, from above (all); --plain: no checkpointing;
 * --ops: CPU time by operation.
 * @module
 */
import process from "node:process";
import { parseArgs } from "node:util";
import type { Backend } from "../src/core/backend.ts";
import type { Tensor } from "../src/core/tensor.ts";
import type { Batch } from "../src/data/types.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { createOptimizer } from "../src/train/optimizers.ts";
import { Stepper } from "../src/train/step.ts";
import { createWasmBackend } from "../wasm/mod.ts";
import { LORA } from "./llama_3b.ts";
import { cpuTime, type Entry, median, metered, printBook, totalFlops } from "./meter.ts";

const TOKENS = 512;

/** Sequences of `length` random tokens, all but each last token trained. */
function randomBatch(vocab: number, length: number): Batch {
  const ids = Int32Array.from({ length: TOKENS }, (_, i) => (i * 7919 + 13) % vocab), cu = [0];
  while (cu.at(-1)! < TOKENS) cu.push(Math.min(TOKENS, cu.at(-1)! + length));
  const pos = ids.map((_, i) => i % length), targets = ids.map((_, i) => ids[(i + 1) % TOKENS]);
  const weights = Float32Array.from(ids, (_, i) => (i + 1) % length === 0 || i + 1 === TOKENS ? 0 : 1);
  return { ids, targets, weights, pos, cu: Int32Array.from(cu) };
}

/** A function that measures GFLOP/s of the step's commonest product: the median of a quarter of a second. */
function productRate(be: Backend): () => number {
  const tensor = (...shape: number[]): Tensor => {
    const n = shape.reduce((a, b) => a * b),
      t = { handle: be.alloc(4 * n), byteOffset: 0, dtype: "f32" as const, shape };
    be.upload(t, new Float32Array(n).fill(0.5));
    return t;
  };
  const [c, a, b] = [tensor(512, 1536), tensor(512, 576), tensor(1536, 576)];
  return () => {
    const times: number[] = [];
    for (const end = performance.now() + 250; performance.now() < end;) {
      const start = performance.now();
      be.matmul(c, a, b, null, { transB: true });
      times.push(performance.now() - start);
    }
    return 2 * 512 * 1536 * 576 / median(times) / 1e6;
  };
}

const lastLayers = (layers: number, n: number): number[] => Array.from({ length: n }, (_, i) => layers - n + i);

const flags = {
  model: { type: "string", default: "../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf" },
  threads: { type: "string" },
  steps: { type: "string", default: "4" },
  sequence: { type: "string", default: "512" },
  last: { type: "string" },
  plain: { type: "boolean", default: false },
  ops: { type: "boolean", default: false },
} as const;

async function main(): Promise<void> {
  const { values: o } = parseArgs({ args: process.argv.slice(2), options: flags });
  const wasm = await createWasmBackend({ threads: o.threads ? Number(o.threads) : undefined });
  const book = new Map<string, Entry>(), be = metered(wasm, book, o.ops ? cpuTime : null);
  const source = openModel(o.model), length = Number(o.sequence);
  const lora = { ...LORA, ...(o.last ? { layersToTransform: lastLayers(source.config.layers, Number(o.last)) } : {}) };
  const model = await loadModel(source, { backend: be, lora, checkpoint: !o.plain, maxLength: length });
  const optimizer = createOptimizer(be, model.params!, {
    ...{ name: "adamw_torch", lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
    ...{ schedule: "linear", warmupSteps: 0, totalSteps: 100 },
  });
  const pass = { maxTokens: TOKENS, maxSequences: Math.ceil(TOKENS / length), maxLength: length };
  const stepper = new Stepper(model, optimizer, pass), batch = randomBatch(source.config.vocab, length);
  const rate = productRate(wasm), times: number[] = [], rates = [rate(), rate()].slice(1);
  for (let t = 1; t <= Number(o.steps); t++) {
    book.clear();
    const start = performance.now(), before = cpuTime();
    const { loss } = await stepper.step([batch], { lr: 2e-4, t });
    const ms = performance.now() - start, cpu = cpuTime() - before;
    times.push(ms), rates.push(rate());
    console.log(
      `step ${t}: ${ms.toFixed(0)} ms, ${cpu.toFixed(0)} ms of all threads, loss ${loss.toFixed(4)}; ` +
        `${shares(book, times, rates).at(-1)!.toFixed(0)} % of the product's ${
          rates.at(-1)!.toFixed(1)
        } GFLOP/s around it`,
    );
  }
  report(wasm, book, times, rates, o.ops);
  stepper.close();
  optimizer.close();
  model.close();
  wasm.close();
}

/** Per cent of the product's rate, the mean of before and after, that each step reached. */
function shares(book: Map<string, Entry>, times: readonly number[], rates: readonly number[]): number[] {
  return times.map((ms, i) => 200 * totalFlops(book) / ms / 1e6 / (rates[i] + rates[i + 1]));
}

function report(be: Backend, book: Map<string, Entry>, times: number[], rates: number[], ops: boolean): void {
  const flops = totalFlops(book), ms = Math.min(...times), share = median(shares(book, times, rates));
  console.log(`${be.device}`);
  console.log(`tokens/s ${(TOKENS / ms * 1000).toFixed(1)}, peak ${(be.memory().peak / 1048576).toFixed(0)} MiB`);
  console.log(`products ${(flops / 1e9).toFixed(1)} GFLOP a step, ${(flops / 1e9 / TOKENS).toFixed(3)} a token`);
  const reached = `${(flops / ms / 1e6).toFixed(1)} GFLOP/s at the best step`;
  console.log(`${reached}; ${share.toFixed(0)} % of a single product's rate around it at the median step`);
  if (ops) printBook(book, 40);
}

await main();
