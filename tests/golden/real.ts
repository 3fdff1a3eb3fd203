/** golden-real: twenty LoRA steps on a real model, greedy answers and top log-probabilities before and after. */
import type { Backend } from "../../src/core/backend.ts";
import { loadModel, type Model, openModel, writeAdapter } from "../../src/models/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import { type Case, optimOf, stepBatches, values, valuesUnder } from "./case.ts";
import { type Check, firstDifference, relativeCurve, worstNorm } from "./compare.ts";
import { greedy, logProbs } from "./decode.ts";

/** What the losses, log-probabilities and greedy tokens are held to; a token whose margin is smaller may differ. */
export interface RealBounds {
  readonly curve: number;
  readonly logProbs: number;
  readonly margin: { readonly base: number; readonly tuned: number };
}

/** In f32: the model's Q4_1 blocks are read in place, in another order of sums than torch's. */
const F32: RealBounds = { curve: 1e-3, logProbs: 1e-3, margin: { base: 0.01, tuned: 0.05 } };

/** Runs the case on the model file. */
export async function runReal(c: Case, be: Backend, modelPath: string, bounds: RealBounds = F32): Promise<Check[]> {
  const source = openModel(modelPath), batches = stepBatches(c);
  const maxTokens = Math.max(...batches.map((b) => b.ids.length));
  const maxSequences = Math.max(...batches.map((b) => b.cu.length - 1));
  const width = c.golden.tensors.get("ids")!.shape[2];
  // Nothing is computed twice: that recomputing gives the same bits is held by tests/train/checkpointing_test.ts.
  const lora = c.adapter!.settings,
    model = await loadModel(source, { backend: be, maxLength: width, lora, checkpoint: false });
  source.close();
  writeAdapter(model, c.adapter!);
  const checks = await prompts(c, model, "base", bounds);
  const optim = optimOf(c.recipe), optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, { maxTokens, maxSequences, maxLength: width });
  const loss: number[] = [], norm: number[] = [], rate: number[] = [];
  for (let t = 1; t <= optim.totalSteps; t++) {
    const lr = learningRate(optim, t), r = await stepper.step([batches[t - 1]], { lr, t });
    loss.push(r.loss);
    norm.push(r.gradNorm);
    rate.push(lr);
  }
  stepper.close();
  optimizer.close();
  checks.push({ what: "loss curve", value: relativeCurve(loss, values(c, "loss_curve")), bound: bounds.curve });
  checks.push({ what: "norm curve", value: relativeCurve(norm, values(c, "grad_norm_curve")), bound: Infinity });
  checks.push({ what: "lr", value: relativeCurve(rate, values(c, "lr_curve")), bound: 1e-7 });
  const trained = new Map([...await model.trained()].map(([n, t]) => [n, t.values]));
  checks.push({ what: "final", value: worstNorm(trained, valuesUnder(c, "final.")).worst, bound: Infinity });
  checks.push(...await prompts(c, model, "tuned", bounds));
  model.close();
  return checks;
}

/** Greedy tokens and top log-probabilities of every prompt: the first decoded alone, the others side by side. */
async function prompts(c: Case, model: Model, kind: "base" | "tuned", bounds: RealBounds): Promise<Check[]> {
  const names = [...c.golden.tensors.keys()].flatMap((n) => /^prompt\d+(?=\.ids$)/.exec(n)?.[0] ?? []).sort();
  const of = (name: string, what: string) => values(c, `${name}.${kind}.${what}`);
  let worst = 0, differs = "", compared = 0, total = 0;
  for (const group of [names.slice(0, 1), names.slice(1)]) {
    const ids = group.map((n) => Int32Array.from(values(c, `${n}.ids`)));
    const found = await greedy(model, ids, of(group[0], "greedy").length, kind === "tuned");
    for (const [i, name] of group.entries()) {
      const wanted = of(name, "greedy"), top = of(name, "top_ids"), p = logProbs(found[i].first);
      const part = firstDifference(found[i].tokens, wanted, of(name, "margin"), bounds.margin[kind]);
      if (part.at !== null) differs ||= `${name} token ${part.at}`;
      compared += part.compared;
      total += wanted.length;
      of(name, "top_logprobs").forEach((x, j) => worst = Math.max(worst, Math.abs(p[top[j]] - x)));
    }
  }
  return [
    { what: `${kind} log-probs`, value: worst, bound: kind === "base" ? bounds.logProbs : Infinity },
    { what: `${kind} greedy`, value: differs ? 1 : 0, bound: 0, note: differs || `${compared}/${total}` },
  ];
}
