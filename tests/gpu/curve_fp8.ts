/**
 * The loss curve of an 8-bit base on real text. No model at hand has sizes that are multiples of 128, so one is made: a small Llama
 * is trained whole on half of golden-real's batches; from its weights an adapter is trained a hundred steps on the other half, over
 * an f32, a bf16 and an 8-bit base. Fails when one of the latter lies further from f32's than 1 % of the loss in the mean.
 * `deno run -A --no-config tests/gpu/curve_fp8.ts ../shared/golden-real`
 * @module
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { candidate } from "../../cuda/mod.ts";
import { llamaConfig, LORA } from "../../bench/llama_3b.ts";
import { Random } from "../../src/core/philox.ts";
import type { Batch } from "../../src/data/types.ts";
import type { FloatTensor } from "../../src/formats/adapter.ts";
import { floatTensor, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { loadModel, type LoadOptions, type ModelSource, openModel, roundSource } from "../../src/models/mod.ts";
import { expandNames } from "../../src/models/names.ts";
import { familyOf } from "../../src/models/registry.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { openCase, optimOf, stepBatches } from "../golden/case.ts";

const [dir] = process.argv.slice(2), STEPS = 100, WHOLE = 150;
if (!dir) throw new Error("Cannot start: curve_fp8.ts DIR");
const c = openCase(dir), width = c.golden.tensors.get("ids")!.shape[2], batches = stepBatches(c);
c.golden.close();
const seen = batches.slice(0, batches.length / 2), unseen = batches.slice(batches.length / 2);
const hf = {
  ...llamaConfig(8),
  ...{ vocab_size: 49152, hidden_size: 512, num_attention_heads: 4, num_key_value_heads: 2, intermediate_size: 1536 },
};

/** Writes the model folder. */
async function write(tensors: ReadonlyMap<string, FloatTensor>): Promise<void> {
  writeFileSync(join(work, "config.json"), JSON.stringify(hf));
  await writeSafetensors(
    join(work, "model.safetensors"),
    [...tensors].map(([n, t]) => floatTensor(n, t.values, t.shape)),
  );
}

/** Normal numbers of size 0.02; norms are ones. */
function fresh(): Map<string, FloatTensor> {
  const family = familyOf(hf), random = new Random(1);
  return new Map(
    expandNames(family.tensors, family.config(hf)).map(({ hf: name, shape }) => {
      const n = shape.reduce((a, b) => a * b, 1), one = shape.length === 1;
      return [name, { shape, values: Float32Array.from({ length: n }, () => one ? 1 : 0.02 * random.normal()) }];
    }),
  );
}

/** Losses of `steps` steps over `batches` in turn, and what was trained. */
async function train(
  source: ModelSource,
  actDtype: "f32" | "bf16",
  how: Pick<LoadOptions, "lora" | "full">,
  o: { batches: readonly Batch[]; steps: number; lr: number },
): Promise<{ losses: number[]; trained: Map<string, FloatTensor> }> {
  const be = await candidate.open({ actDtype }),
    model = await loadModel(source, { backend: be, maxLength: width, ...how });
  const optimizer = createOptimizer(be, model.params!, optimOf(c.recipe));
  const stepper = new Stepper(model, optimizer, {
    maxTokens: Math.max(...o.batches.map((b) => b.ids.length)),
    maxSequences: Math.max(...o.batches.map((b) => b.cu.length - 1)),
    maxLength: width,
  });
  const losses: number[] = [];
  for (let t = 1; t <= o.steps; t++) {
    losses.push((await stepper.step([o.batches[(t - 1) % o.batches.length]], { lr: o.lr, t })).loss);
  }
  const trained = await model.trained();
  stepper.close();
  optimizer.close();
  model.close();
  source.close();
  be.close();
  return { losses, trained };
}

const work = mkdtempSync(join(tmpdir(), "curve-fp8-"));
try {
  await write(fresh());
  const whole = await train(openModel(work), "bf16", { full: true }, { batches: seen, steps: WHOLE, lr: 5e-4 });
  console.log(`trained whole: loss ${whole.losses[0].toFixed(4)} -> ${whole.losses[WHOLE - 1].toFixed(4)}`);
  await write(whole.trained);
  const on = { batches: unseen, steps: STEPS, lr: 1e-3 }, lora = { lora: LORA };
  const exact = (await train(openModel(work), "f32", lora, on)).losses;
  console.log(`f32: loss ${exact[0].toFixed(4)} -> ${exact[STEPS - 1].toFixed(4)}`);
  let failed = !(exact[STEPS - 1] < 0.8 * exact[0]);
  for (const name of ["bf16", "fp8"] as const) {
    const source = openModel(work);
    const { losses } = await train(name === "fp8" ? roundSource(source) : source, "bf16", lora, on);
    const off = losses.map((l, t) => Math.abs(l / exact[t] - 1)), mean = off.reduce((a, b) => a + b) / STEPS;
    console.log(
      `${name}: loss ${losses[0].toFixed(4)} -> ${losses[STEPS - 1].toFixed(4)}; from f32's ${
        (100 * mean).toFixed(3)
      } % of the ` +
        `loss in the mean, ${(100 * Math.max(...off)).toFixed(3)} % at most`,
    );
    failed ||= !(mean < 0.01);
  }
  if (failed) throw new Error("Wrong: the adapter did not learn, or a curve lies too far off");
} finally {
  rmSync(work, { recursive: true, force: true });
}
