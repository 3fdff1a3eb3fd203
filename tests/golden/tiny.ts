/** A tiny case on one backend: one pass's logits, loss and gradients, twenty steps, greedy tokens. */
import { Arena } from "../../src/core/arena.ts";
import type { Backend } from "../../src/core/backend.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import type { Batch } from "../../src/data/types.ts";
import { loadModel, type Model, openModel, quantizeSource, writeAdapter } from "../../src/models/mod.ts";
import { softcapLogits } from "../../src/nn/head.ts";
import { createRun } from "../../src/nn/run.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import { type Case, optimOf, packRows, values, valuesUnder } from "./case.ts";
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

/** Runs a case. `modelPath` is the folder itself unless another file is given. */
export async function runTiny(c: Case, be: Backend, b: Bounds, modelPath: string): Promise<Check[]> {
  const width = c.golden.tensors.get("input_ids")!.shape[1];
  const batch = packRows(values(c, "input_ids"), values(c, "attention_mask"), values(c, "labels"), width);
  const opened = openModel(modelPath), source = c.recipe.start === "loftq" ? quantizeSource(opened) : opened;
  const model = await loadModel(source, {
    backend: be,
    maxLength: width,
    ...(c.lora ? { lora: c.lora } : { full: true }),
  });
  source.close();
  if (c.adapter) writeAdapter(model, c.adapter);
  const optim = optimOf(c.recipe), optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, {
    maxTokens: batch.ids.length,
    maxSequences: batch.cu.length - 1,
    maxLength: width,
    chunk: 17, // several chunks, the last one short
  });
  const checks = [logitsCheck(await packedLogits(model, batch), c, batch, width, b)];
  const first = await stepper.gradients([batch], { t: 1 });
  checks.push({ what: "loss", value: relativeCurve([first.loss], values(c, "loss")), bound: b.logits });
  checks.push(...await tensorChecks(c, model, "grad", b.grads));
  checks.push(...await train(c, stepper, batch, b));
  checks.push(...await tensorChecks(c, model, "final", b.final));
  checks.push(await greedyCheck(c, model));
  stepper.close();
  optimizer.close();
  model.close();
  return checks;
}

/** Logits of every packed row. */
async function packedLogits(model: Model, batch: Batch): Promise<Float32Array> {
  const { be, decoder, config } = model, n = batch.ids.length, arena = new Arena(be, 32 * 1048576);
  const place = (x: Int32Array): Tensor => {
    const t = arena.tensor("i32", x.length);
    be.upload(t, x);
    return t;
  };
  const run = createRun({ be, arena, pos: place(batch.pos), cu: place(batch.cu), maxLen: n });
  const out = new Float32Array(n * config.vocab);
  await be.download(decoder.logits(decoder.forward(place(batch.ids), run), run), out);
  arena.close();
  softcapLogits(out, config.logitSoftcap);
  return out;
}

/** Recorded logits lie in padded rows; ours are packed. */
function logitsCheck(found: Float32Array, c: Case, batch: Batch, width: number, b: Bounds): Check {
  const recorded = values(c, "logits"), vocab = found.length / batch.ids.length;
  const wanted = new Float32Array(found.length);
  for (let s = 0; s + 1 < batch.cu.length; s++) {
    const rows = recorded.subarray(s * width * vocab, (s * width + batch.cu[s + 1] - batch.cu[s]) * vocab);
    wanted.set(rows, batch.cu[s] * vocab);
  }
  return { what: "logits", value: relativeNorm(found, wanted), bound: b.logits };
}

async function download(model: Model, kind: "grad" | "value"): Promise<Map<string, Float32Array>> {
  const out = new Map<string, Float32Array>();
  for (const p of model.params!.list) {
    const x = new Float32Array(p.value.shape.reduce((a, b) => a * b, 1));
    await model.be.download(p[kind], x);
    out.set(p.name, x);
  }
  return out;
}

/** Gradients or final weights, where the case records them. */
async function tensorChecks(c: Case, model: Model, what: "grad" | "final", bound: number): Promise<Check[]> {
  const wanted = valuesUnder(c, `${what}.`);
  if (wanted.size === 0 && c.recipe.start) return []; // signs of singular vectors are free
  const { worst, name } = worstNorm(await download(model, what === "grad" ? "grad" : "value"), wanted);
  return [{ what, value: worst, bound, note: name }];
}

async function train(c: Case, stepper: Stepper, batch: Batch, b: Bounds): Promise<Check[]> {
  const optim = optimOf(c.recipe), loss: number[] = [], norm: number[] = [], rate: number[] = [];
  for (let t = 1; t <= optim.totalSteps; t++) {
    const lr = learningRate(optim, t), r = await stepper.step([batch], { lr, t });
    loss.push(r.loss);
    norm.push(r.gradNorm);
    rate.push(lr);
  }
  return [
    { what: "loss curve", value: relativeCurve(loss, values(c, "loss_curve")), bound: b.curve },
    { what: "norm curve", value: relativeCurve(norm, values(c, "grad_norm_curve")), bound: b.curve },
    { what: "lr", value: relativeCurve(rate, values(c, "lr_curve")), bound: 1e-7 },
  ];
}

async function greedyCheck(c: Case, model: Model): Promise<Check> {
  const wanted = values(c, "greedy_tokens"), prompt = Int32Array.from(values(c, "greedy_prompt"));
  const { tokens } = await greedy(model, prompt, wanted.length, true);
  const { at, compared } = firstDifference(tokens, wanted, values(c, "greedy_margin"), MARGIN);
  const note = at === null ? `${compared}/${wanted.length}` : `token ${at}`;
  return { what: "greedy", value: at === null ? 0 : 1, bound: 0, note };
}
