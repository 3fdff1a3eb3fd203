/** What stays of the blocks between the passes: no number changes, each level recomputes less, and the plan is kept. */
import { describe, expect, test } from "vitest";
import { llamaWithoutWeights, LORA } from "../../bench/llama_3b.ts";
import { RecordingBackend } from "../../src/core/recording.ts";
import type { Batch } from "../../src/data/types.ts";
import { loadModel } from "../../src/models/load.ts";
import type { Checkpointing } from "../../src/nn/checkpoint.ts";
import { LEVEL, type Level } from "../../src/nn/mixer.ts";
import { type CheckpointMode, chooseCheckpointing } from "../../src/train/checkpointing.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import type { OptimOptions } from "../../src/train/types.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { shake, TINY, tinyLora, tinySource } from "../models/tiny.ts";

const OPTIM: OptimOptions = {
  ...{ name: "adamw_torch", lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: 10 },
};
const PASS = { maxTokens: 29, maxSequences: 3, maxLength: 16, chunk: 5 };
const LEVELS = Object.values(LEVEL), GIB = 2 ** 30;

function batch(): Batch {
  const n = 29, cu = Int32Array.of(0, 16, 17, 29), start = (i: number) => cu.findLast((c) => c <= i)!;
  return {
    ...{ ids: Int32Array.from({ length: n }, (_, i) => (i * 7 + 3) % 37), cu },
    ...{ targets: Int32Array.from({ length: n }, (_, i) => (i * 5 + 1) % 37), weights: new Float32Array(n).fill(1) },
    pos: Int32Array.from({ length: n }, (_, i) => i - start(i)),
  };
}

describe.each(["llama", "qwen3", "gemma2", "phi3"])("%s on WASM", (family) => {
  test("three steps have the same losses and weights to the bit, whatever stays of each block", async () => {
    const be = await createWasmBackend({ threads: 1 }), lora = tinyLora({ dropout: 0.2 });
    const run = async (checkpoint: Checkpointing) => {
      const model = await loadModel(tinySource(TINY[family]), { backend: be, maxLength: 16, lora, checkpoint });
      shake(be, model.decoder.params());
      const optimizer = createOptimizer(be, model.params!, OPTIM), stepper = new Stepper(model, optimizer, PASS);
      const steps = [];
      for (let t = 1; t <= 3; t++) steps.push(await stepper.step([batch()], { lr: 1e-2, t }));
      const out = { steps, trained: await model.trained() };
      for (const x of [stepper, optimizer, model]) x.close();
      return out;
    };
    const plain = await run({ levels: [4, 4, 4] }), mixed: Level[][] = [[5, 4, 3], [2, 1, 0], [0, 3, 2], [1, 5, 1]];
    expect(plain.steps[2].loss).not.toBe(plain.steps[0].loss);
    for (const levels of [...LEVELS.map((l) => [l, l, l]), ...mixed]) {
      expect(await run({ levels }), `levels ${levels}`).toEqual(plain);
    }
    be.close();
  });
});

/** Calls of a training pass over a recorded llama, by operation. */
async function calls(level: Level) {
  const be = new RecordingBackend(), lora = tinyLora(), checkpoint = { levels: [level, level, level] };
  const model = await loadModel(tinySource(TINY.llama), { backend: be, maxLength: 16, lora, checkpoint });
  const stepper = new Stepper(model, createOptimizer(be, model.params!, OPTIM), PASS);
  be.take();
  await stepper.gradients([batch()], { t: 1 });
  const made = be.take(), frozen = [...model.weights.values()].filter((t) => t.shape.length > 1);
  const wide = frozen.map((w) => `${w.handle}+${w.byteOffset}`);
  return {
    attention: made.filter((c) => c.op === "attention").length,
    norm: made.filter((c) => c.op === "norm").length,
    // Products with a block's frozen weight: 7 a block forward and 7 backward but for the 3 towards the embedding, which learns
    // nothing; and 2 a chunk with the head.
    products: made.filter((c) => {
      const w = c.args[2] as { handle: number; byteOffset: number };
      return c.op === "matmul" && wide.includes(`${w.handle}+${w.byteOffset}`);
    }).length + 3 - 2 * Math.ceil(29 / PASS.chunk),
  };
}

test("each level computes twice what it says and no more", async () => {
  const found = [];
  for (const level of LEVELS) found.push(await calls(level));
  // Three blocks: o, q, k, v, gate and up, but never down, whose output nothing in the backward reads.
  expect(found.map((c) => c.products / 3)).toEqual([14 + 6, 14 + 6, 14 + 5, 14 + 2, 14, 14]);
  expect(found.map((c) => c.attention / 3)).toEqual([2, 1, 1, 1, 1, 1]);
  // Two norms a block; where products stay, only their inputs are made again.
  expect(found.map((c) => (c.norm - 1) / 3)).toEqual([4, 4, 4, 4, 4, 2]);
});

/** A plan of Llama-3.2-3B's shape in bf16 at 2048 tokens a sequence. */
function plan(mode: CheckpointMode, batchSize: number, budget?: number) {
  const pass = { maxTokens: batchSize * 2048, maxSequences: batchSize, maxLength: 2048, chunk: 1024 };
  const target = { actDtype: "bf16" as const, supports: () => true };
  return chooseCheckpointing(llamaWithoutWeights(), target, {
    ...{ mode, lora: LORA, pass, optim: OPTIM },
    ...budget ? { budget } : {},
  });
}

test("inputs cannot move to host memory where that is the device's: refused before anything is placed", async () => {
  const be = await createWasmBackend({ threads: 1 }), before = be.memory().active;
  const load = loadModel(tinySource(TINY.llama), {
    backend: be,
    maxLength: 16,
    lora: tinyLora(),
    checkpoint: "offload",
  });
  await expect(load).rejects.toThrow(
    "Cannot move blocks' inputs to host memory on wasm: nothing to gain: host memory is device memory",
  );
  expect(be.memory().active).toBe(before);
  be.close();
});

describe("a plan of Llama-3.2-3B's shape", () => {
  test("takes 20 GiB at batch 4 when everything stays, and as much as the arithmetic says of what is recomputed", () => {
    expect(plan("none", 4).memory.total).toBeLessThan(20 * GIB);
    // At batch 8: 28 inputs of blocks, the gradient, one block's middle, q, k, v and attention's output (11,264 numbers a
    // token with it), gate, up and one more of their width, both norms' outputs, the feed-forward's gradient; 2 bytes each.
    const numbers = 29 * 3072 + 11264 + 3 * 8192 + 3 * 3072;
    const { memory } = plan("full", 8), floor = 2 * 16384 * numbers;
    expect(memory.arena).toBeGreaterThan(floor);
    expect(memory.arena).toBeLessThan(1.02 * floor);
  });

  test("keeps more with a larger budget, never passes it, and recomputes no attention within 16 GiB at batch 8", () => {
    let before = -1;
    for (const budget of [11, 13, 16, 20, 30, 40]) {
      const { checkpoint: { levels }, memory } = plan("selective", 8, budget * GIB);
      expect(memory.total).toBeLessThanOrEqual(budget * GIB);
      if (memory.total < 36 * GIB) expect(memory.total, "the budget is used").toBeGreaterThan(0.97 * budget * GIB);
      const sum = levels.reduce((a: number, b) => a + b, 0);
      expect(sum).toBeGreaterThan(before);
      before = sum;
      if (budget === 16) expect(Math.min(...levels)).toBe(LEVEL.middle);
    }
  });

  test("that fits nowhere is the smallest there is", () => {
    expect(plan("selective", 8, GIB).memory).toEqual(plan("full", 8).memory);
  });
});
