import { afterAll, beforeAll, expect, test } from "vitest";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Backend } from "../../src/core/backend.ts";
import { BackendError, DataError } from "../../src/core/errors.ts";
import { openDataset, prepare, type Rows, selectRows } from "../../src/data/mod.ts";
import { loadModel, type LoraOptions, type Model, openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { feed, stepsPerEpoch } from "../../src/train/feed.ts";
import { readMetrics } from "../../src/train/metrics.ts";
import { passOptions, train, type TrainEvent, type TrainRun } from "../../src/train/trainer.ts";
import { planArena } from "../../src/train/plan.ts";
import { Stepper } from "../../src/train/step.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { WasmBackend } from "../../wasm/backend.ts";
import * as fma from "../../wasm/kernels_fma.wasm.ts";
import * as mul from "../../wasm/kernels_mul.wasm.ts";
import { LinearMemory } from "../../wasm/memory.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { Pool, SCRATCH_BYTES } from "../../wasm/pool.ts";
import { fusesMultiplyAdd } from "../../wasm/probe.ts";
import { CONTROL } from "../../wasm/worker.ts";
import { tinyModel } from "./tiny_model.ts";

let be: Backend, tiny: Awaited<ReturnType<typeof tinyModel>>, rows: Rows, heldOut: Rows;
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

const LORA: LoraOptions = {
  ...{ r: 4, alpha: 8, rslora: false, dora: false, dropout: 0.1, targetModules: ["q_proj", "down_proj"] },
  ...{ rankPattern: {}, alphaPattern: {}, modulesToSave: [], bias: "none", baseModel: null },
};

async function fresh(): Promise<Model> {
  const source = openModel(tiny.model);
  const model = await loadModel(source, { backend: be, lora: LORA, maxLength: 96 });
  source.close();
  return model;
}

function runOf(model: Model, name: string, o: Partial<TrainRun> = {}): TrainRun {
  return {
    ...{ model, rows, heldOut: null, feed: { batchSize: 2, seed: 5, accumulation: 2 }, smoothing: 0 },
    optim: {
      ...{ name: "adamw_torch", lr: 2e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
      ...{ schedule: "linear", warmupSteps: 2, totalSteps: 20 },
    },
    ...{ evalBatchSize: 3, evalEvery: 0, patience: 0, logEvery: 1, dir: join(tiny.dir, name), saveEvery: 0, keep: 2 },
    ...{ resume: false, tensorboard: false, settings: { seed: 5 } },
    ...o,
  };
}

const losses = (name: string) => readMetrics(join(tiny.dir, name, "metrics.jsonl")).flatMap((m) => m.loss ?? []);

test("feed() gives every row once an epoch, and a step never crosses an epoch's end", () => {
  const o = { batchSize: 2, seed: 5, accumulation: 4 }, steps = stepsPerEpoch(rows, o);
  expect(steps).toBe(3); // 11 micro-batches: 4, 4, 3
  const stream = feed(rows, o, { epoch: 0, micro: 0 });
  const first = Array.from({ length: steps }, () => stream.next().value);
  expect(first.map((s) => s.micro.length)).toEqual([4, 4, 3]);
  expect(first.flatMap((s) => s.records).sort((a, b) => a - b)).toEqual(Array.from({ length: 22 }, (_, i) => i));
  expect(first.map((s) => s.next)).toEqual([{ epoch: 0, micro: 4 }, { epoch: 0, micro: 8 }, { epoch: 1, micro: 0 }]);
  const second = stream.next().value;
  expect(second.records).not.toEqual(first[0].records);
  expect(feed(rows, o, first[1].next).next().value.records).toEqual(first[2].records);
});

test("twenty steps are ten, an interruption and ten more, to the bit", async () => {
  const whole = await fresh(), events: TrainEvent[] = [];
  const result = await train(runOf(whole, "whole", { on: (e) => events.push(e) }));
  expect(result).toMatchObject({ steps: 20, ended: "done" });
  expect(result.loss).toBeLessThan(losses("whole")[0]);
  expect(events.filter((e) => e.kind === "log")).toHaveLength(20);

  const stop = new AbortController(), half = await fresh();
  const on = (e: TrainEvent) => e.kind === "step" && e.metrics.step === 10 && stop.abort();
  const first = await train(runOf(half, "parts", { on, signal: stop.signal }));
  expect(first).toMatchObject({ steps: 10, ended: "interrupted" });
  half.close();
  const rest = await fresh();
  const second = await train(runOf(rest, "parts", { resume: true }));
  expect(second).toMatchObject({ steps: 20, ended: "done", trainedTokens: result.trainedTokens });

  expect(losses("parts")).toEqual(losses("whole"));
  const [a, b] = [await whole.trained(), await rest.trained()];
  for (const [name, t] of a) expect(b.get(name)!.values, name).toEqual(t.values);
  whole.close();
  rest.close();
});

test.each(["adamw_8bit", "sgd", "lion_32bit", "adafactor"])("%s is resumed to the bit", async (name) => {
  const optim = { ...runOf(await fresh(), "").optim, name, totalSteps: 6 };
  const end = async (dir: string, o: Partial<TrainRun>) => {
    const model = await fresh();
    await train(runOf(model, dir, { optim, ...o }));
    const values = [...(await model.trained()).values()].map((t) => t.values);
    model.close();
    return values;
  };
  const stop = new AbortController();
  const on = (e: TrainEvent) => e.kind === "step" && e.metrics.step === 3 && stop.abort();
  await end(`${name} cut`, { signal: stop.signal, on });
  expect(await end(`${name} cut`, { resume: true })).toEqual(await end(`${name} whole`, {}));
});

test("a device lost in mid-run leaves its last checkpoint, says so, and the run goes on from it to the bit", async () => {
  const optim = { ...runOf(await fresh(), "").optim, totalSteps: 6 };
  const end = async (backend: Backend, o: Partial<TrainRun>) => {
    const source = openModel(tiny.model), model = await loadModel(source, { backend, lora: LORA, maxLength: 96 });
    source.close();
    await train(runOf(model, "lost", { optim, saveEvery: 2, ...o }));
    return [...(await model.trained()).values()].map((t) => t.values);
  };
  const whole = await end(be, {});
  let lost = false;
  const fail = () => {
    throw new BackendError("Cannot run add on cuda: the device failed with unspecified launch failure", "add", 5);
  };
  // From step 4 on every call fails, those that give memory back too.
  const dying = new Proxy(be, {
    get(t, k) {
      const v = Reflect.get(t, k, t);
      return typeof v !== "function" ? v : (...args: unknown[]) => lost ? fail() : v.apply(t, args);
    },
  });
  const on = (e: TrainEvent) => void (lost ||= e.kind === "step" && e.metrics.step === 5);
  const run = end(dying, { on });
  await expect(run).rejects.toThrow(
    /^Cannot run add on cuda: the device failed.*checkpoint-000004 is intact, and --resume/,
  );
  expect(await end(be, { resume: true })).toEqual(whole);
  lost = false;
  const early = end(dying, { saveEvery: 0, on: (e) => void (lost ||= e.kind === "step") });
  await expect(early).rejects.toThrow("no checkpoint was saved; --save_steps makes them");
});

test("resuming needs a checkpoint, and refuses other settings by name", async () => {
  const model = await fresh();
  await expect(train(runOf(model, "nothing", { resume: true }))).rejects.toThrow("there is no checkpoint in");
  await train(runOf(model, "saved", { saveEvery: 10 }));
  expect(readdirSync(join(tiny.dir, "saved")).filter((f) => f.startsWith("checkpoint")).sort()).toEqual([
    "checkpoint-000010",
    "checkpoint-000020",
  ]);
  const other = { resume: true, settings: { seed: 6 } };
  await expect(train(runOf(model, "saved", other))).rejects.toThrow("seed was 5 and is 6");
  model.close();
});

test("a new run removes what the last one in its folder left", async () => {
  const model = await fresh();
  await train(runOf(model, "saved", { optim: { ...runOf(model, "").optim, totalSteps: 2 } }));
  expect(readdirSync(join(tiny.dir, "saved"))).toEqual(["metrics.jsonl"]);
  expect(losses("saved")).toHaveLength(2);
  model.close();
});

test("the held-out loss is the mean over all trained tokens, whatever the batches", async () => {
  const model = await fresh(), seen: number[][] = [];
  for (const evalBatchSize of [1, 3]) {
    const result = await train(
      runOf(model, "eval", { heldOut, evalBatchSize, optim: { ...runOf(model, "").optim, lr: 0 } }),
    );
    seen.push(result.evaluations.map((e) => e.loss));
    expect(result.evaluations.map((e) => e.step)).toEqual([0, 20]);
  }
  const stepper = new Stepper(model, null, passOptions(runOf(model, "", { heldOut, evalBatchSize: 7 })));
  const { batches } = await import("../../src/data/mod.ts");
  const [all] = batches(heldOut, { batchSize: 7, seed: 0, shuffle: false });
  const { loss } = await stepper.evaluate(all);
  for (const value of seen.flat()) expect(value).toBeCloseTo(loss, 5);
  stepper.close();
  model.close();
});

test("early stopping ends a run that gets worse and keeps the best weights", async () => {
  const model = await fresh(), events: TrainEvent[] = [];
  const one = selectRows(rows, [0]); // learning one row by heart makes the others worse
  const optim = { ...runOf(model, "").optim, lr: 0.1, totalSteps: 200, schedule: "constant" as const };
  const o = { rows: one, heldOut, optim, evalEvery: 2, patience: 3, feed: { batchSize: 1, seed: 1, accumulation: 1 } };
  const result = await train(runOf(model, "early", { ...o, on: (e) => events.push(e) }));
  expect(result.ended).toBe("early stop");
  const evaluations = result.evaluations.slice(1), best = Math.min(...evaluations.map((e) => e.loss));
  expect(evaluations.at(-4)!.loss).toBe(best);
  expect(result.kept).toEqual({ step: result.steps - 6, loss: best });
  expect(events.at(-1)).toMatchObject({ kind: "early stop", stop: { worse: 3 } });
  const again = await train(runOf(model, "again", { heldOut, optim: { ...optim, lr: 0, totalSteps: 1 } }));
  expect(again.evaluations[0].loss).toBeCloseTo(best, 5);
  expect(existsSync(join(tiny.dir, "early", "best.safetensors"))).toBe(false);
  model.close();
});

test("a loss that is not finite stops the run and names the batch's records and the last checkpoint", async () => {
  const model = await fresh();
  const optim = { ...runOf(model, "").optim, lr: 1e30, warmupSteps: 1, maxGradNorm: 0, totalSteps: 20 };
  const run = runOf(model, "nan", { optim, saveEvery: 1 });
  await expect(train(run)).rejects.toThrow(
    /at step \d+ the loss is .*records \d+, \d+, \d+, \d+; .*checkpoint-\d+ is intact/,
  );
  rmSync(run.dir, { recursive: true });
  await expect(train({ ...run, saveEvery: 0 })).rejects.toThrow("no checkpoint was saved");
  model.close();
});

test("what is wrong with a step's rows is told when its turn comes, not while the step before it runs", async () => {
  const model = await fresh();
  let taken = 0;
  const broken = new Proxy(rows, {
    get(of, name) {
      if (name === "at" && ++taken > 8) throw new DataError("Cannot read row 9: it is gone");
      const value = Reflect.get(of, name, of);
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
  await expect(train(runOf(model, "broken", { rows: broken }))).rejects.toThrow("it is gone");
  expect(losses("broken")).toHaveLength(2);
  model.close();
});

test("large batches of the evaluation do not make the training's activations larger", async () => {
  const model = await fresh(), run = runOf(model, "");
  const arena = (evalBatchSize: number, training: boolean) => {
    const { trainTokens: _, ...whole } = passOptions({ ...run, heldOut, evalBatchSize });
    return planArena(model, training ? whole : passOptions({ ...run, heldOut, evalBatchSize }));
  };
  expect(arena(7, false)).toBeLessThan(0.6 * arena(7, true));
  expect(arena(7, false)).toBeGreaterThanOrEqual(arena(1, false));
  model.close();
});

test("passOptions() bounds every batch of every epoch, packed or not", () => {
  for (const packTo of [null, 96]) {
    const o = { batchSize: 3, seed: 9, accumulation: 2, packTo },
      bounds = passOptions({
        ...{ rows, heldOut, feed: o, evalBatchSize: 5, smoothing: 0 },
      });
    const stream = feed(rows, o, { epoch: 0, micro: 0 });
    for (let i = 0; i < 12; i++) {
      for (const b of stream.next().value.micro) {
        expect(b.ids.length).toBeLessThanOrEqual(bounds.maxTokens);
        expect(b.cu.length - 1).toBeLessThanOrEqual(bounds.maxSequences);
        expect(Math.max(...b.pos) + 1).toBeLessThanOrEqual(bounds.maxLength);
      }
    }
  }
});

/** A wasm backend of two threads, and what ends its worker without its knowledge. */
async function mortal(): Promise<{ be: Backend; kill(): void }> {
  const { base64 } = fusesMultiplyAdd() ? fma : mul;
  const module = await WebAssembly.compile(Buffer.from(base64, "base64")), mem = new LinearMemory(1 << 30);
  mem.reserve(SCRATCH_BYTES, Pool.bytes(2));
  const pool = await Pool.start({ kernels: module, panels: null }, mem.memory, SCRATCH_BYTES, 2);
  const kill = () => {
    const ctl = new Int32Array(mem.memory.buffer, 0, 256);
    Atomics.store(ctl, CONTROL.stop, 1);
    Atomics.add(ctl, CONTROL.generation, 1);
    Atomics.notify(ctl, CONTROL.generation);
  };
  return { be: new WasmBackend(mem, pool, "mortal"), kill };
}

test("a worker that is killed ends the run with a clear error; its last checkpoint goes on to the bit", async () => {
  const { be: weak, kill } = await mortal(), source = openModel(tiny.model);
  const model = await loadModel(source, { backend: weak, lora: LORA, maxLength: 96 });
  source.close();
  // The worker's end is an event, heard in one of the pauses between steps: the run is long enough for it.
  const optim = { ...runOf(model, "").optim, schedule: "constant" as const, totalSteps: 100_000 };
  const on = (e: TrainEvent) => e.kind === "step" && e.metrics.step === 5 && kill();
  const run = train(runOf(model, "harmed", { saveEvery: 2, optim, on }));
  await expect(run).rejects.toThrow(/^Cannot run \w+: worker 1 ended unexpectedly/);
  weak.close();
  const totalSteps = readMetrics(join(tiny.dir, "harmed", "metrics.jsonl")).length + 3;
  const rest = await fresh(), whole = await fresh();
  await train(runOf(rest, "harmed", { optim: { ...optim, totalSteps }, resume: true }));
  await train(runOf(whole, "unharmed", { optim: { ...optim, totalSteps } }));
  expect(losses("harmed")).toEqual(losses("unharmed"));
  for (const m of [rest, whole]) m.close();
});

test("an evaluation is interrupted between two batches; before the first step there is nothing to save", async () => {
  const model = await fresh(), signal = AbortSignal.abort();
  await expect(train(runOf(model, "early abort", { heldOut, signal }))).rejects.toMatchObject({ name: "AbortError" });
  const stop = new AbortController(), optim = { ...runOf(model, "").optim, totalSteps: 3 };
  const on = (e: TrainEvent) => e.kind === "step" && e.metrics.step === 3 && stop.abort();
  const late = await train(runOf(model, "late abort", { heldOut, optim, signal: stop.signal, on }));
  expect([late.ended, late.evaluations.length]).toEqual(["done", 1]);
  model.close();
});

test("Ctrl-C is heard at the end of the step it comes in, on a busy machine soon after, however long steps are", () => {
  const args = [..."Deno" in globalThis ? ["run", "-A"] : [], fileURLToPath(new URL("hears.ts", import.meta.url))];
  const { stdout } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 });
  expect(stdout.trim()).toMatch(/^heard after step [3-6]$/);
});
