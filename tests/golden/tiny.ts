/** A tiny case on one backend: one pass's logits, loss and gradients, twenty steps, greedy tokens. */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Arena } from "../../src/core/arena.ts";
import type { Backend } from "../../src/core/backend.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import type { Batch } from "../../src/data/types.ts";
import { loadModel, type Model, openModel, quantizeSource, writeAdapter } from "../../src/models/mod.ts";
import { fromDevice } from "../../src/models/trained.ts";
import { softcapLogits } from "../../src/nn/head.ts";
import { createRun } from "../../src/nn/run.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import { longestOf } from "../../src/train/pass.ts";
import { type Case, leftOut, microBatches, optimOf, packRows, values, valuesUnder } from "./case.ts";
import { type Check, firstDifference, relativeCurve, relativeNorm, worstNorm } from "./compare.ts";
import { greedy } from "./decode.ts";

/** Bounds by backend: the recorded f32 numbers themselves are that close to the same recipe in f64. */
export interface Bounds {
  readonly logits: number;
  readonly grads: number;
  readonly curve: number;
  readonly final: number;
}

/** Smallest recorded margin between the two best tokens at which greedy tokens must still agree. */
const MARGIN = 1e-3;

/** Runs a case. `modelPath`: another file than the case's own weights. */
export async function runTiny(c: Case, be: Backend, b: Bounds, modelPath: string = c.weights): Promise<Check[]> {
  const micro = microBatches(c), { train: t } = c.recipe, width = c.golden.tensors.get("input_ids")!.shape.at(-1)!;
  const model = await loadCase(c, be, modelPath === c.dir ? c.weights : modelPath, width);
  const optim = optimOf(c.recipe), optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, {
    maxTokens: Math.max(...micro.map((m) => m.ids.length)),
    maxSequences: Math.max(...micro.map((m) => m.cu.length - 1)),
    maxLength: width,
    chunk: 17, // several chunks, the last one short
    smoothing: t.label_smoothing,
    zLoss: t.z_loss,
  });
  const checks = await logitsChecks(c, model, micro, b);
  if (modelPath === c.dir) checks.push(...await olderForm(c, be, micro, b));
  checks.push(...await adapterOff(c, stepper, micro, b));
  const first = await stepper.gradients(micro, { t: 1 });
  checks.push({ what: "loss", value: relativeCurve([first.loss], values(c, "loss")), bound: b.logits });
  checks.push(...await tensorChecks(c, model, "grad", b.grads));
  checks.push(...await train(c, stepper, micro, b));
  checks.push(...await tensorChecks(c, model, "final", b.final));
  checks.push(...await greedyCheck(c, model));
  stepper.close();
  optimizer.close();
  model.close();
  return checks;
}

/** The case's model with its adapter; source files are closed again. */
export async function loadCase(c: Case, be: Backend, path: string, maxLength: number): Promise<Model> {
  const opened = openModel(path), source = c.recipe.start === "loftq" ? quantizeSource(opened) : opened;
  const model = await loadModel(source, { backend: be, maxLength, ...(c.lora ? { lora: c.lora } : { full: true }) });
  source.close();
  if (c.adapter) writeAdapter(model, c.adapter);
  return model;
}

/** Logits of the batch, and of one sequence of each further length that is recorded. */
async function logitsChecks(c: Case, model: Model, micro: readonly Batch[], b: Bounds): Promise<Check[]> {
  const checks: Check[] = [];
  if (!leftOut(c, "logits")) {
    checks.push({ what: "logits", value: await logitsDistance(c, model, micro[0]), bound: b.logits });
  }
  for (let i = 0; c.golden.tensors.has(`more.${i}.input_ids`); i++) {
    const ids = values(c, `more.${i}.input_ids`), wanted = values(c, `more.${i}.logits`), n = ids.length;
    const found = await packedLogits(model, packRows(ids, ids.map(() => 1), ids, n));
    const value = relativeNorm(found.subarray(found.length - wanted.length), wanted);
    checks.push({ what: `${n} tokens`, value, bound: b.logits });
  }
  return checks;
}

/** Relative norm from the recorded logits, which lie in padded rows; ours are packed. */
async function logitsDistance(c: Case, model: Model, batch: Batch): Promise<number> {
  const found = await packedLogits(model, batch), { vocab } = model.config, wanted = new Float32Array(found.length);
  const recorded = values(c, "logits"), width = c.golden.tensors.get("logits")!.shape[1];
  for (let s = 0; s + 1 < batch.cu.length; s++) {
    const rows = recorded.subarray(s * width * vocab, (s * width + batch.cu[s + 1] - batch.cu[s]) * vocab);
    wanted.set(rows, batch.cu[s] * vocab);
  }
  return relativeNorm(found, wanted);
}

/** The same weights under config.old.json, which says what config.json says in the form before transformers 5. */
async function olderForm(c: Case, be: Backend, micro: readonly Batch[], b: Bounds): Promise<Check[]> {
  const old = join(c.dir, "config.old.json");
  if (!existsSync(old)) return [];
  const dir = mkdtempSync(join(tmpdir(), "unsloth-golden-"));
  try {
    copyFileSync(old, join(dir, "config.json"));
    copyFileSync(join(c.dir, "model.safetensors"), join(dir, "model.safetensors"));
    const model = await loadCase(c, be, dir, c.golden.tensors.get("input_ids")!.shape.at(-1)!);
    const checks = (await logitsChecks(c, model, micro, b)).map((k) => ({ ...k, what: `old ${k.what}` }));
    model.close();
    return checks;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** -log p of each target with the adapter left out: the frozen reference model of DPO and its kin. */
async function adapterOff(c: Case, stepper: Stepper, micro: readonly Batch[], b: Bounds): Promise<Check[]> {
  const t = c.golden.tensors.get("off.nll");
  if (!t) return [];
  const recorded = values(c, "off.nll"), width = t.shape[1], found: number[] = [], wanted: number[] = [];
  let row = 0;
  for (const m of micro) {
    const { perToken } = await stepper.evaluate(m, { adapters: false });
    for (let s = 0; s + 1 < m.cu.length; s++, row++) {
      for (let n = m.cu[s]; n < m.cu[s + 1]; n++) {
        if (m.weights[n] === 0) continue;
        found.push(perToken[n]);
        wanted.push(recorded[row * width + m.pos[n]]);
      }
    }
  }
  return [{ what: "off", value: relativeNorm(found, wanted), bound: b.logits }];
}

/** Logits of every packed row. @param length what length-dependent frequencies are set for; the longest sequence's */
export async function packedLogits(model: Model, batch: Batch, length = longestOf(batch)): Promise<Float32Array> {
  const { be, decoder, config } = model, n = batch.ids.length, arena = new Arena(be, 32 * 1048576);
  const place = (x: Int32Array): Tensor => {
    const t = arena.tensor("i32", x.length);
    be.upload(t, x);
    return t;
  };
  decoder.prepare(length);
  const run = createRun({ be, arena, pos: place(batch.pos), cu: place(batch.cu), maxLen: n });
  const out = new Float32Array(n * config.vocab);
  await be.download(decoder.logits(decoder.forward(place(batch.ids), run), run), out);
  arena.close();
  softcapLogits(out, config.logitSoftcap);
  return out;
}

/** Where peft trains a composite module whole, its parameters' names have this in the middle, and ours near the end. */
const WRAPPER = ".modules_to_save";

async function download(model: Model, kind: "grad" | "value"): Promise<Map<string, Float32Array>> {
  const out = new Map<string, Float32Array>();
  for (const p of model.params!.list) {
    const values = new Float32Array(p.value.shape.reduce((a, b) => a * b, 1));
    await model.be.download(p[kind], values);
    out.set(p.name.replace(WRAPPER, ""), fromDevice(p.name, { shape: p.value.shape, values }).values);
  }
  return out;
}

/** Gradients or final weights. */
async function tensorChecks(c: Case, model: Model, what: "grad" | "final", bound: number): Promise<Check[]> {
  if (leftOut(c, what)) return [];
  const recorded = [...valuesUnder(c, `${what}.`)], found = await download(model, what === "grad" ? "grad" : "value");
  const wanted = new Map(recorded.map(([name, values]) => [name.replace(WRAPPER, ""), values]));
  if (c.recipe.start) { // the signs of singular vectors are free
    for (const all of [wanted, found]) all.forEach((x, name) => all.set(name, x.map(Math.abs)));
  }
  const { worst, name } = worstNorm(found, wanted);
  return [{ what, value: worst, bound, note: name }];
}

async function train(c: Case, stepper: Stepper, micro: readonly Batch[], b: Bounds): Promise<Check[]> {
  const optim = optimOf(c.recipe), loss: number[] = [], norm: number[] = [], rate: number[] = [];
  for (let t = 1; t <= optim.totalSteps; t++) {
    const lr = learningRate(optim, t), r = await stepper.step(micro, { lr, t });
    loss.push(r.loss);
    norm.push(r.gradNorm);
    rate.push(lr);
  }
  const losses = values(c, "loss_curve");
  return [
    { what: "loss curve", value: relativeCurve(loss, losses, losses), bound: b.curve },
    { what: "norm curve", value: relativeCurve(norm, values(c, "grad_norm_curve"), losses), bound: b.curve },
    { what: "lr", value: relativeCurve(rate, values(c, "lr_curve")), bound: 1e-7 },
  ];
}

async function greedyCheck(c: Case, model: Model): Promise<Check[]> {
  if (leftOut(c, "greedy")) return [];
  const wanted = values(c, "greedy_tokens"), prompt = Int32Array.from(values(c, "greedy_prompt"));
  const [{ tokens }] = await greedy(model, [prompt], wanted.length, true);
  const { at, compared } = firstDifference(tokens, wanted, values(c, "greedy_margin"), MARGIN);
  const note = at === null ? `${compared}/${wanted.length}` : `token ${at}`;
  return [{ what: "greedy", value: at === null ? 0 : 1, bound: 0, note }];
}
