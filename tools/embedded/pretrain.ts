/**
 * Pretrains the embedded model with this package's own trainer on the WASM backend:
 * `deno run -A tools/embedded/pretrain.ts DIR [steps] [seed] [from]` writes a Hugging Face folder with the trained weights.
 * @module
 */
import { join } from "node:path";
import process from "node:process";
import type { Batch } from "../../src/data/types.ts";
import { floatTensor, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { loadModel, openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import type { OptimOptions } from "../../src/train/types.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { SHAPE, writeBase } from "./base.ts";
import { documents } from "./corpus.ts";

/** Windows a step. */
const WINDOWS = 4;

/** Endless windows of the corpus: documents one after the other, each ended by the end token. */
function* windows(encode: (text: string) => Int32Array, end: number, seed: number): Generator<Int32Array> {
  let held: number[] = [];
  for (const text of documents(seed)) {
    held.push(...encode(text), end);
    while (held.length > SHAPE.context) {
      yield Int32Array.from(held.slice(0, SHAPE.context + 1));
      held = held.slice(SHAPE.context);
    }
  }
}

/** Windows side by side, each a sequence of its own. */
function batchOf(parts: readonly Int32Array[]): Batch {
  const length = SHAPE.context, n = parts.length * length;
  const ids = new Int32Array(n), targets = new Int32Array(n);
  parts.forEach((p, i) => {
    ids.set(p.subarray(0, length), i * length);
    targets.set(p.subarray(1), i * length);
  });
  return {
    ids,
    targets,
    weights: new Float32Array(n).fill(1),
    pos: Int32Array.from({ length: n }, (_, i) => i % length),
    cu: Int32Array.from({ length: parts.length + 1 }, (_, i) => i * length),
  };
}

/** @param from goes on after this step with the folder's weights; the optimiser starts anew */
async function pretrain(dir: string, steps: number, seed: number, from: number): Promise<void> {
  if (from === 0) await writeBase(dir, seed);
  const source = openModel(dir), tokenizer = loadTokenizer(dir), be = await createWasmBackend();
  const model = await loadModel(source, { backend: be, full: true, checkpoint: false, maxLength: SHAPE.context });
  const optim: OptimOptions = {
    ...{ name: "adamw_torch", lr: 4e-3, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.05, maxGradNorm: 1 },
    ...{ schedule: "cosine", warmupSteps: Math.min(50, steps / 10), totalSteps: steps },
  };
  const optimizer = createOptimizer(be, model.params!, optim);
  const shape = { maxTokens: WINDOWS * SHAPE.context, maxSequences: WINDOWS, maxLength: SHAPE.context };
  const stepper = new Stepper(model, optimizer, shape);
  const stream = windows((t) => tokenizer.encode(t), tokenizer.eos[0], seed);
  const next = () => batchOf(Array.from({ length: WINDOWS }, () => stream.next().value!));
  for (let n = 0; n < from * WINDOWS; n++) stream.next();
  console.log(`${model.params!.count} parameters, ${tokenizer.size} tokens`);
  const started = performance.now();
  for (let t = from + 1; t <= steps; t++) {
    const { loss, gradNorm } = await stepper.step([next()], { lr: learningRate(optim, t), t });
    if (t % 10 === 0 || t === 1) {
      const rate = (t - from) * shape.maxTokens / (performance.now() - started) * 1000;
      console.log(`step ${t} loss ${loss.toFixed(4)} norm ${gradNorm.toFixed(3)} ${rate.toFixed(0)} tokens/s`);
    }
    if (t % 100 === 0 || t === steps) {
      const tensors = [...await model.trained()].map(([name, w]) => floatTensor(name, w.values, w.shape));
      await writeSafetensors(join(dir, "model.safetensors"), tensors);
    }
  }
  be.close();
}

if (import.meta.main) {
  const [dir, steps, seed, from] = process.argv.slice(2);
  await pretrain(dir, Number(steps ?? 1200), Number(seed ?? 1), Number(from ?? 0));
}
