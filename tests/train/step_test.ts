/** One step over micro-batches: what it computes, what it plans, what it refuses. */
import { describe, expect, test } from "vitest";
import type { Backend, Graph } from "../../src/core/backend.ts";
import { describe as line, RecordingBackend } from "../../src/core/recording.ts";
import type { Batch } from "../../src/data/types.ts";
import { loadModel, type LoadOptions, type Model } from "../../src/models/load.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import type { PassOptions } from "../../src/train/pass.ts";
import { planMemory } from "../../src/train/plan.ts";
import { sequenceLogProbs, Stepper } from "../../src/train/step.ts";
import type { OptimOptions } from "../../src/train/types.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { shake, TINY, tinyLora, tinySource } from "../models/tiny.ts";
import { ReferenceBackend } from "../reference/mod.ts";

const PASS: PassOptions = { maxTokens: 32, maxSequences: 6, maxLength: 16, chunk: 5 };

const OPTIM: OptimOptions = {
  ...{ name: "adamw_torch", lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: 10 },
};

/** Rows of these lengths; the first `masked` targets of each are not trained, and never the last token. */
function batch(lengths: readonly number[], masked = 1, from = 0): Batch {
  const out = { ids: [] as number[], targets: [] as number[], weights: [] as number[], pos: [] as number[], cu: [0] };
  lengths.forEach((n, s) => {
    for (let i = 0; i < n; i++) {
      out.ids.push((s * 11 + i * 5 + 3 + from) % 37);
      out.targets.push((s * 11 + i * 5 + 8 + from) % 37);
      out.weights.push(i >= masked && i + 1 < n ? 1 : 0);
      out.pos.push(i);
    }
    out.cu.push(out.ids.length);
  });
  const i32 = (x: number[]) => Int32Array.from(x);
  return {
    ...{ ids: i32(out.ids), targets: i32(out.targets), weights: Float32Array.from(out.weights) },
    ...{ pos: i32(out.pos), cu: i32(out.cu) },
  };
}

async function setup(
  o: Partial<LoadOptions> & { pass?: Partial<PassOptions>; optim?: Partial<OptimOptions>; be?: Backend } = {},
): Promise<{ model: Model; stepper: Stepper }> {
  const be = o.be ?? new ReferenceBackend();
  const model = await loadModel(tinySource(TINY.llama), { backend: be, maxLength: 16, lora: tinyLora(), ...o });
  if (be.name !== "recording") shake(be, model.decoder.params());
  const optimizer = createOptimizer(be, model.params!, { ...OPTIM, ...o.optim });
  return { model, stepper: new Stepper(model, optimizer, { ...PASS, ...o.pass }) };
}

async function grads(model: Model): Promise<number[]> {
  const out: number[] = [];
  for (const p of model.decoder.params()) {
    const x = new Float64Array(p.grad.shape.reduce((a, b) => a * b, 1));
    await model.be.download(p.grad, x);
    out.push(...x);
  }
  return out;
}

/** ‖a - b‖ / ‖b‖. */
function distance(a: readonly number[], b: readonly number[]): number {
  return Math.sqrt(a.reduce((s, x, i) => s + (x - b[i]) ** 2, 0) / b.reduce((s, x) => s + x * x, 0));
}

describe("the step", () => {
  test("micro-batches of unequal length have the loss and gradients of all their rows in one batch", async () => {
    const { model, stepper } = await setup(), rows = [9, 4, 7, 3];
    const whole = await stepper.gradients([batch(rows)], { t: 1 }), wanted = await grads(model);
    // The same rows, two by two: batch() numbers its sequences, so the second one starts where the first ends.
    const parts = [batch([9, 4]), batch([7, 3], 1, 22)];
    const split = await stepper.gradients(parts, { t: 1 });
    expect(split.tokens).toBe(whole.tokens);
    expect(split.loss).toBeCloseTo(whole.loss, 6);
    expect(distance(await grads(model), wanted)).toBeLessThan(1e-6); // weights are f32: 1/T is rounded
  });

  test("twenty steps on one batch halve its loss, and the norm reported is the one before clipping", async () => {
    const { stepper } = await setup({ optim: { lr: 3e-2 } }), b = batch([9, 4, 7]), losses = [];
    for (let t = 1; t <= 20; t++) losses.push((await stepper.step([b], { lr: 3e-2, t })).loss);
    expect(losses[19]).toBeLessThan(0.5 * losses[0]);
    const { stepper: other } = await setup(), first = await other.gradients([b], { t: 1 });
    expect((await other.step([b], { lr: 0, t: 1 })).gradNorm).toBe(first.gradNorm);
  });

  test("weights are used as they are when not normalised, negative ones too", async () => {
    const { model, stepper } = await setup(), b = batch([9, 4]), tokens = b.weights.filter((w) => w > 0).length;
    const mean = await stepper.gradients([b], { t: 1 }), wanted = await grads(model);
    const signed = { ...b, weights: b.weights.map((w) => -w / tokens) };
    const r = await stepper.gradients([signed], { t: 1, normalize: false }), found = await grads(model);
    expect(r.loss).toBeCloseTo(-mean.loss, 6);
    expect(distance(found.map((x) => -x), wanted)).toBeLessThan(1e-6);
  });

  test("dropout and noise repeat for the same seed and step, and differ for another", async () => {
    const lora = tinyLora({ dropout: 0.3 });
    const { model, stepper } = await setup({ lora, pass: { neftune: 5 } }), b = batch([9, 4]);
    const at = async (seed: number, t: number) => {
      await stepper.gradients([b], { t, seed });
      return await grads(model);
    };
    const first = await at(1, 1);
    expect(await at(1, 1)).toEqual(first);
    expect(await at(1, 2)).not.toEqual(first);
    expect(await at(2, 1)).not.toEqual(first);
  });

  test("NEFTune shakes training only, by α/√(length·D)", async () => {
    const b = batch([9, 4]), plain = (await setup()).stepper, noisy = (await setup({ pass: { neftune: 5 } })).stepper;
    const quiet = (await setup({ pass: { neftune: 1e-9 } })).stepper;
    const losses = await Promise.all([plain, noisy, quiet].map(async (s) => (await s.gradients([b], { t: 1 })).loss));
    expect(Math.abs(losses[1] - losses[0])).toBeGreaterThan(1e-3);
    expect(losses[2]).toBeCloseTo(losses[0], 6);
    expect((await noisy.evaluate(b)).loss).toBe((await plain.evaluate(b)).loss);
  });

  test("the base model is seen without adapters, and log-probabilities add up to each sequence's loss", async () => {
    const { stepper } = await setup(), b = batch([9, 4, 1]);
    const tuned = await stepper.evaluate(b), base = await stepper.evaluate(b, { adapters: false });
    expect(Math.abs(tuned.loss - base.loss)).toBeGreaterThan(1e-3);
    const sums = sequenceLogProbs(b, tuned);
    expect(sums.reduce((a, x) => a + x, 0)).toBeCloseTo(-tuned.loss * tuned.tokens, 5);
    expect(sums[2]).toBe(0); // one token predicts nothing
    expect((await stepper.gradients([b], { t: 1 })).loss).toBeCloseTo(tuned.loss, 5);
  });
});

describe("what is planned and recorded", () => {
  test("the second and third step make the calls of the first, on other tokens", async () => {
    const rec = new RecordingBackend(), { stepper } = await setup({ be: rec }), calls: string[][] = [];
    for (let t = 1; t <= 3; t++) {
      rec.take();
      await stepper.step([batch([9, 4], 1, t), batch([7, 3], 1, 5 * t)], { lr: 1, t });
      calls.push(rec.take().map(line));
    }
    expect(calls[1]).toEqual(calls[0]);
    expect(calls[2]).toEqual(calls[0]);
    expect(calls[0].some((c) => c.startsWith("alloc"))).toBe(false);
  });

  test.each([true, false])("memory planned is memory used on WASM (checkpointed: %s)", async (checkpoint) => {
    const source = tinySource(TINY.gemma2), lora = tinyLora(), be = await createWasmBackend({ threads: 1 });
    for (const name of ["adamw_torch", "adamw_8bit"]) {
      const optim = { ...OPTIM, name }, before = be.memory().active;
      const plan = planMemory(source, be, { lora, checkpoint, pass: PASS, optim });
      const model = await loadModel(source, { backend: be, maxLength: 16, lora, checkpoint });
      const optimizer = createOptimizer(be, model.params!, optim), stepper = new Stepper(model, optimizer, PASS);
      await stepper.step([batch([16, 4, 7, 5])], { lr: 1e-3, t: 1 });
      expect(stepper.pass.arena.peakBytes).toBeLessThanOrEqual(plan.arena);
      // The rest is a slab of rotary frequencies and one f32.
      const used = be.memory().active - before;
      expect(used).toBeGreaterThanOrEqual(plan.total);
      expect(used - plan.total).toBeLessThan(4096);
      stepper.close();
      optimizer.close();
      model.close();
      expect(be.memory().active, "everything was given back").toBe(before);
    }
    be.close();
  });

  test("where the device has graphs the second pass of a shape is recorded, and later ones replay it", async () => {
    const log: string[] = [];
    class Device extends ReferenceBackend {
      override capture(work: () => void): Graph {
        log.push("capture");
        return { launch: () => (log.push("launch"), work()), close: () => log.push("close") };
      }
    }
    const b = batch([9, 4]), plain = (await setup()).stepper, { stepper } = await setup({ be: new Device() });
    for (let t = 1; t <= 4; t++) {
      expect(await stepper.step([b], { lr: 1e-2, t })).toEqual(await plain.step([b], { lr: 1e-2, t }));
    }
    stepper.close();
    const pair = ["launch", "launch"]; // the pass and the update
    expect(log).toEqual(["capture", "launch", "capture", "launch", ...pair, ...pair, "close", "close"]);
  });

  test("what is to happen meanwhile happens between the last launch and the one read of a step laid out before", async () => {
    const rec = new RecordingBackend(), { stepper } = await setup({ be: rec }), b = batch([9, 4]);
    rec.take();
    const staged = stepper.stage([b]);
    expect(rec.take()).toEqual([]);
    let before: string[] = [];
    const { tokens } = await stepper.step(staged, { lr: 1, t: 1 }, () => {
      before = rec.take().map((c) => c.op);
    });
    expect(before).toContain("adamw");
    expect(before).not.toContain("download");
    expect(rec.take().map((c) => c.op)).toEqual(["download"]);
    expect(tokens).toBe(staged.tokens);

    const { stepper: one } = await setup(), { stepper: other } = await setup(), early = other.stage([b], false);
    expect(await one.step([b], { lr: 1e-2, t: 1, normalize: false })).toEqual(
      await other.step(early, { lr: 1e-2, t: 1 }),
    );
  });
});

test("a batch without a trained token, one too large, and training a model loaded for inference are refused", async () => {
  const { stepper } = await setup(), step = { lr: 1, t: 1 };
  await expect(stepper.step([batch([5, 4], 9)], step)).rejects.toThrow("no token has a weight, all are masked");
  await expect(stepper.step([batch([17])], step)).rejects.toThrow("Cannot run 17 tokens in 1 sequences of up to 17");
  await expect(stepper.step([batch([1, 1, 1, 1, 1, 1, 3])], step)).rejects.toThrow("32 in 6 of up to 16 were planned");
  const model = await loadModel(tinySource(TINY.llama), { backend: new ReferenceBackend(), maxLength: 16 });
  const plain = new Stepper(model, null, PASS);
  await expect(plain.step([batch([5])], step)).rejects.toThrow("Cannot train: there is no optimiser");
  await expect(plain.gradients([batch([5])], step)).rejects.toThrow("the model was loaded for inference");
});
