/**
 * The golden cases on CUDA: `deno run -A --no-config tests/gpu/golden.ts DIR [f32,bf16] [case]`. In f32 within WASM's bounds; in bf16 the first
 * gradients by relative norm and the twenty losses, since a run in 8-bit mantissas can only follow an f32 one so far.
 * @module
 */
import process from "node:process";
import { candidate } from "../../cuda/mod.ts";
import type { Backend } from "../../src/core/backend.ts";
import { loadModel, openModel, writeAdapter } from "../../src/models/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { learningRate } from "../../src/train/schedule.ts";
import { Stepper } from "../../src/train/step.ts";
import { type Case, findCases, openCase, optimOf, packRows, values, valuesUnder } from "../golden/case.ts";
import { type Check, holds, relativeCurve, relativeNorm } from "../golden/compare.ts";
import { runTiny } from "../golden/tiny.ts";

const F32 = { logits: 1e-5, grads: 5e-5, curve: 2e-4, final: 1e-3 };
/**
 * bf16 rounds each activation to 2^-9; a two-layer model's gradients pass some thirty of them. The curve is judged as a whole:
 * a loss of 0.002 at its end is below what logits in 8 bits can resolve.
 */
const BF16_GRADS = 4e-2, BF16_CURVE = 5e-3;

/** All gradients as one vector, and the loss curve. */
async function runBf16(c: Case, be: Backend): Promise<Check[]> {
  const width = c.golden.tensors.get("input_ids")!.shape[1];
  const batch = packRows(values(c, "input_ids"), values(c, "attention_mask"), values(c, "labels"), width);
  const source = openModel(c.dir);
  const model = await loadModel(source, {
    backend: be,
    maxLength: width,
    ...(c.adapter ? { lora: c.adapter.settings } : { full: true }),
  });
  source.close();
  if (c.adapter) writeAdapter(model, c.adapter);
  const optim = optimOf(c.recipe), optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, {
    maxTokens: batch.ids.length,
    maxSequences: batch.cu.length - 1,
    maxLength: width,
    chunk: 17,
  });
  const first = await stepper.gradients([batch], { t: 1 }), got: number[] = [], want: number[] = [];
  const grads = valuesUnder(c, "grad.");
  for (const p of model.params!.list) {
    const x = new Float32Array(p.value.shape.reduce((a, b) => a * b, 1));
    await be.download(p.grad, x);
    got.push(...x);
    want.push(...grads.get(p.name)!);
  }
  const losses: number[] = [];
  for (let t = 1; t <= optim.totalSteps; t++) {
    losses.push((await stepper.step([batch], { lr: learningRate(optim, t), t })).loss);
  }
  stepper.close();
  optimizer.close();
  model.close();
  return [
    { what: "loss", value: relativeCurve([first.loss], values(c, "loss")), bound: BF16_CURVE },
    { what: "grads", value: relativeNorm(got, want), bound: BF16_GRADS },
    { what: "loss curve", value: relativeNorm(losses, values(c, "loss_curve")), bound: BF16_CURVE },
  ];
}

const [dir, types = "f32,bf16", only] = process.argv.slice(2);
let missed = 0;
for (const path of findCases(dir)) {
  const c = openCase(path);
  if (only && c.name !== only) continue;
  for (const actDtype of types.split(",") as ("f32" | "bf16")[]) {
    const be = await candidate.open({ actDtype }), start = performance.now();
    try {
      const checks = actDtype === "f32" ? await runTiny(c, be, F32, c.dir) : await runBf16(c, be);
      const ok = checks.every(holds);
      if (!ok) missed++;
      const row = checks.map((k) =>
        `${k.what} ${k.value.toExponential(1)}${holds(k) ? "" : ` MISS > ${k.bound} ${k.note ?? ""}`}`
      );
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(
        `${c.name.padEnd(18)} ${actDtype.padEnd(5)}${ok ? "pass" : "MISS"} ${row.join(" · ")} · ${seconds} s`,
      );
    } catch (e) {
      missed++;
      console.log(`${c.name.padEnd(18)} ${actDtype.padEnd(5)}FAIL ${(e as Error).message}`);
    }
    be.close();
  }
  c.golden.close();
}
console.log(missed ? `${missed} missed` : "all golden cases pass");
process.exitCode = missed ? 1 : 0;
