/**
 * A hundred LoRA steps on real text on CUDA: golden-real's twenty batches five times, in f32 and bf16, from its starting
 * adapter. Writes the losses for tests/gpu/curve_peft.py, which trains the same with transformers and peft and compares:
 * `deno run -A --no-config tests/gpu/curve.ts ../shared/golden-real MODEL.gguf curve.json`
 * @module
 */
import { writeFileSync } from "node:fs";
import process from "node:process";
import { candidate } from "../../cuda/mod.ts";
import { loadModel, openModel, writeAdapter } from "../../src/models/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import { openCase, optimOf, stepBatches } from "../golden/case.ts";

const STEPS = 100;
const [dir, path, out] = process.argv.slice(2);
if (!out) throw new Error("Cannot start: curve.ts DIR MODEL OUT.json");
const c = openCase(dir), width = c.golden.tensors.get("ids")!.shape[2], batches = stepBatches(c);
const optim = { ...optimOf(c.recipe), totalSteps: STEPS }, curves: Record<string, number[]> = {};
for (const actDtype of ["f32", "bf16"] as const) {
  const be = await candidate.open({ actDtype }), source = openModel(path);
  const model = await loadModel(source, { backend: be, maxLength: width, lora: c.adapter!.settings });
  source.close();
  writeAdapter(model, c.adapter!);
  const optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, {
    maxTokens: Math.max(...batches.map((b) => b.ids.length)),
    maxSequences: Math.max(...batches.map((b) => b.cu.length - 1)),
    maxLength: width,
  });
  const losses: number[] = curves[actDtype] = [];
  for (let t = 1; t <= STEPS; t++) {
    losses.push((await stepper.step([batches[(t - 1) % batches.length]], { lr: learningRate(optim, t), t })).loss);
  }
  console.log(`${actDtype}: loss ${losses[0].toFixed(4)} -> ${losses[STEPS - 1].toFixed(4)}`);
  stepper.close();
  optimizer.close();
  model.close();
  be.close();
}
c.golden.close();
writeFileSync(out, JSON.stringify(curves));
