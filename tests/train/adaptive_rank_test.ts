/** Ranks that fall in training: the function stays over every decision, runs resume, what is saved is what was trained. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Backend } from "../../src/core/backend.ts";
import { openDataset, prepare, type Rows } from "../../src/data/mod.ts";
import type { Batch } from "../../src/data/types.ts";
import { adapterParts } from "../../src/formats/adapter.ts";
import { readPeft, writePeft } from "../../src/formats/peft.ts";
import { loadModel, type LoraOptions, type Model, openModel, readAdapter } from "../../src/models/mod.ts";
import { writeAdapter } from "../../src/models/peft.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { AdaptiveRank, checkAdaptiveRank, type RankFigures, rankSchedule } from "../../src/train/adaptive_rank.ts";
import { createOptimizer, OPTIMIZER_NAMES } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { train, type TrainEvent, type TrainRun } from "../../src/train/trainer.ts";
import type { OptimOptions } from "../../src/train/types.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { tinyModel } from "./tiny_model.ts";
import { TINY, tinyLora, tinySource } from "../models/tiny.ts";
import { ReferenceBackend } from "../reference/mod.ts";

const OPTIM: OptimOptions = {
  ...{ name: "adamw_torch", lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: 20 },
};

/** Rows of these lengths, all targets but each last one trained. */
function tinyBatch(lengths: readonly number[]): Batch {
  const pos = Int32Array.from(lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i)));
  const ids = pos.map((p, i) => (p * 5 + i * 3 + 2) % 37), cu = [0];
  for (const n of lengths) cu.push(cu.at(-1)! + n);
  const weights = Float32Array.from(pos, (_, i) => cu.includes(i + 1) ? 0 : 1);
  return { ids, targets: ids.map((_, i) => ids[(i + 1) % ids.length]), weights, pos, cu: Int32Array.from(cu) };
}

/** ‖x - y‖ / ‖y‖. */
function distance(x: Float32Array, y: Float32Array): number {
  let difference = 0, whole = 0;
  for (let i = 0; i < x.length; i++) {
    difference += (x[i] - y[i]) ** 2;
    whole += y[i] ** 2;
  }
  return Math.sqrt(difference / whole);
}

describe.each([
  { name: "LoRA on the reference", open: () => new ReferenceBackend(), lora: {} },
  { name: "LoRA on wasm", open: () => createWasmBackend({ threads: 1 }), lora: {} },
  { name: "rsLoRA on wasm", open: () => createWasmBackend({ threads: 1 }), lora: { rslora: true } },
  { name: "DoRA on wasm", open: () => createWasmBackend({ threads: 1 }), lora: { dora: true } },
  { name: "phi3's fused linears on wasm", open: () => createWasmBackend({ threads: 1 }), lora: {}, family: "phi3" },
])("$name", ({ open, lora, family = "llama" }) => {
  const batch = tinyBatch([9, 4, 7]), pass = { maxTokens: 32, maxSequences: 6, maxLength: 16, chunk: 5 };
  let be: Backend, model: Model, stepper: Stepper;
  const settings = tinyLora({ r: 6, alpha: 5, ...lora }), source = tinySource(TINY[family]);
  /** How much B·A moves in a decision's rounding is judged against the loss of each token. */
  const answers = async () => (await stepper.evaluate(batch)).perToken;
  const figures: RankFigures[] = [], changes: number[] = [];
  beforeAll(async () => {
    be = await open();
    model = await loadModel(source, { backend: be, maxLength: 16, lora: settings });
    const optimizer = createOptimizer(be, model.params!, OPTIM), o = { target: 2, every: 2 };
    const ranks = new AdaptiveRank(be, model.params!, optimizer, OPTIM, o);
    stepper = new Stepper(model, optimizer, pass);
    const { every } = o, { end } = rankSchedule(every, OPTIM.totalSteps);
    for (let t = 1; t <= end; t++) {
      await stepper.step([batch], { lr: OPTIM.lr, t });
      // What afterStep() does besides deciding is the fade of marked directions: the same without the decision.
      const decides = t >= 4 && t % every === 0, fading = Object.values(ranks.ranks).some(([, n]) => n > 0);
      const before = decides && !fading ? await answers() : null;
      if (decides && fading) changes.push(await changeOfDecision(ranks, t));
      else {
        const now = await ranks.afterStep(t);
        if (now) figures.push(now);
        if (before) changes.push(distance(await answers(), before));
      }
    }
    optimizer.close();
    ranks.close();
  });
  afterAll(() => {
    stepper.close();
    model.close();
    be.close();
  });

  /** The fade's last part is done by hand first, which is B's marked columns set to zero; then the decision. */
  async function changeOfDecision(ranks: AdaptiveRank, t: number): Promise<number> {
    for (const [module, [live, fading]] of Object.entries(ranks.ranks)) {
      const b = model.params!.get(`${module}.lora_B.weight`)!.value, [rows, r] = b.shape;
      const values = new Float32Array(rows * r);
      await be.download(b, values);
      for (let o = 0; o < rows; o++) values.fill(0, o * r + live - fading, o * r + live);
      be.upload(b, values);
    }
    const before = await answers(), now = await ranks.afterStep(t);
    if (now) figures.push(now);
    return distance(await answers(), before);
  }

  test("a decision, with directions removed and all others turned, keeps every token's loss to 1e-6", () => {
    expect(figures.map((f) => f.step)).toEqual([4, 6, 8, 10, 12, 14]);
    expect(figures.some((f) => f.fading > 0)).toBe(true);
    expect(changes).toHaveLength(6);
    for (const change of changes) expect(change).toBeLessThan(1e-6);
  });

  test("ranks come down to the budget over all layers, and are not the same in all", () => {
    const last = figures.at(-1)!, cost = last.elements / last.mean;
    expect(last.fading).toBe(0);
    expect(last.elements).toBeLessThanOrEqual(2 * cost);
    expect(last.elements).toBeGreaterThan(1.9 * cost); // no more than a direction under it
    expect(last.of).toBe(6 * cost);
    expect(last.least).toBeGreaterThanOrEqual(1);
    expect(last.most).toBeGreaterThan(2);
  });

  test("what was removed stays removed: further steps leave it exactly zero", async () => {
    const optimizer = createOptimizer(be, model.params!, OPTIM), more = new Stepper(model, optimizer, pass);
    const shapes = async () => [...(await readAdapter(model)).tensors].map(([name, t]) => [name, t.shape]);
    const before = await shapes();
    for (let t = 1; t <= 3; t++) await more.step([batch], { lr: OPTIM.lr, t });
    expect(await shapes()).toEqual(before);
    more.close();
    optimizer.close();
  });

  test("the adapter that is saved has the lower ranks and, loaded as any other, the trained model's losses", async () => {
    const adapter = await readAdapter(model), trained = await answers();
    const parts = adapterParts(adapter), ranks = [...parts.pairs.values()].map((p) => p.rank);
    expect(ranks.reduce((a, b) => a + b, 0)).toBeLessThan(6 * ranks.length / 2);
    for (const [module, pair] of parts.pairs) {
      const { scale } = model.plan.adapters.get(module)!;
      expect(Math.abs(pair.scale / scale - 1)).toBeLessThan(2 ** -52);
      expect(pair.scale).toBeCloseTo(lora.rslora ? 5 / Math.sqrt(6) : 5 / 6, 14);
    }
    const plain = await loadModel(source, { backend: be, maxLength: 16, lora: adapter.settings });
    writeAdapter(plain, adapter);
    const other = new Stepper(plain, null, pass), { perToken } = await other.evaluate(batch);
    expect(distance(perToken, trained)).toBeLessThan(1e-6);
    expect(plain.params!.count).toBeLessThan(model.params!.count / 2);
    other.close();
    plain.close();
  });
});

test("what goes has the least product of singular value and gradient, over all layers together", async () => {
  const be = new ReferenceBackend(), lora = tinyLora({ r: 3, targetModules: ["q_proj"] });
  const model = await loadModel(tinySource(TINY.llama), { backend: be, maxLength: 16, lora });
  const optim = { ...OPTIM, totalSteps: 6 }, optimizer = createOptimizer(be, model.params!, optim);
  const ranks = new AdaptiveRank(be, model.params!, optimizer, optim, { target: 1.7, every: 2 });
  // Row i of A is unit vector i; column i of B is 3 - i times unit vector i, and its gradient that vector times this:
  const gradients = [[1, -1, 1], [1e-3, 1e-3, 1e-3], [1, 0.9, -9]];
  const factors = [...model.plan.adapters.keys()].map((module) => ({
    a: model.params!.get(`${module}.lora_A.weight`)!,
    b: model.params!.get(`${module}.lora_B.weight`)!,
  }));
  factors.forEach(({ a, b }, layer) => {
    const [, inputs] = a.value.shape, [outputs] = b.value.shape;
    const diagonal = (rows: number, columns: number, f: (i: number) => number) =>
      Float32Array.from(
        { length: rows * columns },
        (_, n) => n % (columns + 1) === 0 && n < 3 * (columns + 1) ? f(n % columns) : 0,
      );
    be.upload(a.value, diagonal(3, inputs, () => 1));
    be.upload(b.value, diagonal(outputs, 3, (i) => 3 - i));
    // What is orthogonal to B's columns (rows 3 and on) says nothing of the directions that are there.
    be.upload(b.grad, diagonal(outputs, 3, (i) => gradients[layer][i]).fill(7 * layer, 9));
  });
  for (const t of [1, 2, 3, 4]) await ranks.afterStep(t);
  // Scores are [3,2,1], a thousandth of that, and [3,1.8,9]; 5 of 9 stay, of an idle layer one.
  expect(Object.values(ranks.ranks)).toEqual([[2, 0], [1, 0], [2, 0]]);
  const kept = await Promise.all(factors.map(async ({ b }) => {
    const values = new Float32Array(b.value.shape[0] * 3);
    await be.download(b.value, values);
    return [0, 1, 2].filter((row) => values.subarray(3 * row, 3 * row + 3).some((x) => x !== 0));
  }));
  expect(kept).toEqual([[0, 1], [0], [0, 2]]);
});

describe("a run", () => {
  let be: Backend, tiny: Awaited<ReturnType<typeof tinyModel>>, rows: Rows, heldOut: Rows;
  const LORA: LoraOptions = tinyLora({
    r: 4,
    alpha: 8,
    dropout: 0.1,
    targetModules: ["q_proj", "down_proj", "up_proj"],
  });
  beforeAll(async () => {
    tiny = await tinyModel();
    be = await createWasmBackend({ threads: 1 });
    const tokenizer = loadTokenizer(tiny.model), { train, heldOut: held } = instructions(1);
    const read = async (records: unknown[]) =>
      (await prepare(await openDataset(records), tokenizer, { maxLength: 96 })).rows;
    rows = await read(train.slice(0, 22));
    heldOut = await read(held.slice(0, 7));
  });
  afterAll(() => {
    be.close();
    tiny.remove();
  });

  const fresh = async (lora = LORA): Promise<Model> => {
    const source = openModel(tiny.model), model = await loadModel(source, { backend: be, lora, maxLength: 96 });
    source.close();
    return model;
  };
  const run = (model: Model, name: string, o: Partial<TrainRun> = {}): TrainRun => ({
    ...{ model, rows, heldOut: null, feed: { batchSize: 2, seed: 5, accumulation: 1 }, smoothing: 0, optim: OPTIM },
    ...{ adaptiveRank: { target: 2, every: 2 }, evalBatchSize: 3, evalEvery: 0, patience: 0, logEvery: 1 },
    ...{ dir: join(tiny.dir, name), saveEvery: 0, keep: 2, resume: false, tensorboard: false, settings: {} },
    ...o,
  });

  test.each(OPTIMIZER_NAMES.slice(0, 5))(
    "with %s is resumed to the bit, amid a fade and on a decision",
    async (name) => {
      const optim = { ...OPTIM, name };
      const end = async (dir: string, o: Partial<TrainRun>) => {
        const model = await fresh(), { loss } = await train(run(model, dir, { optim, ...o }));
        const tensors = [...(await readAdapter(model)).tensors];
        model.close();
        return { loss, tensors };
      };
      for (const step of [7, 8]) {
        const stop = new AbortController(), dir = `${name} ${step}`;
        const on = (e: TrainEvent) => e.kind === "step" && e.metrics.step === step && stop.abort();
        await end(dir, { signal: stop.signal, on });
        const whole = await end(`${name} whole`, {});
        expect(await end(dir, { resume: true })).toEqual(whole);
        expect(whole.loss).toBeLessThan(6); // ln 320 is 5.8: nothing blew up
        expect(new Set(whole.tensors.flatMap(([n, t]) => n.includes("lora_A") ? t.shape[0] : [])).size).toBeGreaterThan(
          1,
        );
        rmSync(join(tiny.dir, dir), { recursive: true });
      }
    },
  );

  test("tells of every decision, and early stopping may keep an adapter of higher ranks", async () => {
    const model = await fresh(), events: TrainEvent[] = [];
    const optim = { ...OPTIM, lr: 0.2, totalSteps: 40 }; // so high that the first evaluations are the best ones
    const result = await train(
      run(model, "early", { heldOut, optim, evalEvery: 2, patience: 3, on: (e) => events.push(e) }),
    );
    expect(result.ended).toBe("early stop");
    const figures = events.flatMap((e) => e.kind === "ranks" ? [e.figures] : []);
    expect(figures.length).toBeGreaterThan(0);
    expect(figures[0].elements).toBeLessThan(figures[0].of);
    const optimizer = createOptimizer(be, model.params!, OPTIM);
    optimizer.close();
    const again = await train(
      run(model, "again", { heldOut, adaptiveRank: null, optim: { ...OPTIM, lr: 0, totalSteps: 1 } }),
    );
    expect(again.evaluations[0].loss).toBeCloseTo(Math.min(...result.evaluations.slice(1).map((e) => e.loss)), 5);
    model.close();
  });

  test("the folder that is written is peft's, with a rank and an alpha for each module that has its own", async () => {
    const model = await fresh(), { mkdirSync } = await import("node:fs"), dir = join(tiny.dir, "adapter");
    await train(run(model, "saved"));
    mkdirSync(dir);
    await writePeft(dir, await readAdapter(model));
    const { settings, tensors } = readPeft(dir);
    expect(settings).toMatchObject({ r: 4, alpha: 8 });
    const lowered = Object.keys(settings.rankPattern);
    expect(lowered.length).toBeGreaterThan(0);
    for (const module of model.plan.adapters.keys()) {
      const rank = settings.rankPattern[module] ?? 4;
      expect(tensors.get(`${module}.lora_A.weight`)!.shape[0]).toBe(rank);
      expect(tensors.get(`${module}.lora_B.weight`)!.shape[1]).toBe(rank);
      expect((settings.alphaPattern[module] ?? 8) / rank).toBe(2);
    }
    model.close();
  });

  test("PiSSA is refused: its directions hold a part of the weights", async () => {
    const model = await fresh({ ...LORA, start: "pissa" });
    await expect(train(run(model, "pissa"))).rejects.toThrow("Cannot adapt ranks: PiSSA");
    model.close();
  });
});

test("rankSchedule() decides between a fifth and three fifths, and refuses a run that is too short", () => {
  expect(rankSchedule(3, 60)).toEqual({ first: 12, last: 36, end: 39 });
  expect(rankSchedule(1, 5)).toEqual({ first: 1, last: 3, end: 4 });
  expect(rankSchedule(10, 50)).toEqual({ first: 10, last: 30, end: 40 });
  expect(() => rankSchedule(1, 1)).toThrow("Cannot adapt ranks in 1 steps with decisions every 1");
  for (let every = 1; every < 30; every++) {
    expect(() => rankSchedule(every, 5 * every)).not.toThrow(); // what the refusal advises
  }
});

test("checkAdaptiveRank() refuses what cannot come down", () => {
  const specs = (r: number) => [
    { name: "x.q_proj.lora_A.weight", shape: [r, 12] },
    { name: "x.q_proj.lora_B.weight", shape: [8, r] },
  ];
  const o = { target: 2, every: 1 };
  expect(() => checkAdaptiveRank(specs(4), o)).not.toThrow();
  expect(() => checkAdaptiveRank([], o)).toThrow("the run trains no adapters");
  expect(() => checkAdaptiveRank(specs(9), o)).toThrow("the rank 9 of 'x.q_proj': the matrix is [8,12]");
  expect(() => checkAdaptiveRank(specs(2), o)).toThrow("Cannot lower ranks of 2 to 2");
  expect(() => checkAdaptiveRank(specs(4), { ...o, target: 0.5 })).toThrow("the target lies from 1");
});
