/** peft loads the adapters that we train and write, of every kind there is a golden case of, with our logits. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { readPeft, writePeft } from "../../src/formats/peft.ts";
import { loadModel, openModel, readAdapter, writeAdapter } from "../../src/models/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder } from "../formats/files.ts";
import { type Case, microBatches, openCase, optimOf, packRows } from "../golden/case.ts";
import { relativeNorm } from "../golden/compare.ts";
import { loadCase, packedLogits } from "../golden/tiny.ts";
import { askPython, python, why } from "./python.ts";

const ROOT = fileURLToPath(new URL("../fixtures/golden/", import.meta.url));
const NAMES = [
  ...[
    "regex-targets",
    "layers-to-transform",
    "exclude",
    "patterns",
    "save-embed-head",
    "save-norms",
    "head-adapter",
  ],
  ...[
    "bias-all",
    "bias-lora-only",
    "dora-rslora",
    "dora-bias",
    "dora-phi3",
    "pissa",
    "pissa-rslora",
  ],
  ...["tied-save-embed", "tied-save-head", "embedding", "embedding-tied", "embedding-scaled"],
  ...["layers-named", "layers-pattern", "save-adapted", "save-composite", "unmatched"],
];
const STEPS = 3;

/** Trains the case for a few steps and writes its adapter; gives the logits it then has. */
async function trainAndWrite(
  c: Case,
  be: Backend,
  dir: string,
  ids: Int32Array,
): Promise<Float32Array> {
  const micro = microBatches(c),
    model = await loadCase(c, be, c.weights, 24),
    optim = optimOf(c.recipe);
  const optimizer = createOptimizer(be, model.params!, optim);
  const stepper = new Stepper(model, optimizer, {
    maxTokens: 48,
    maxSequences: 2,
    maxLength: 24,
  });
  for (let t = 1; t <= STEPS; t++) await stepper.step(micro, { lr: 1e-2, t });
  mkdirSync(dir);
  await writePeft(dir, await readAdapter(model));
  const logits = await packedLogits(model, oneRow(ids));
  stepper.close();
  optimizer.close();
  model.close();
  return logits;
}

const oneRow = (ids: Int32Array) => {
  const row = Float32Array.from(ids);
  return packRows(row, row.map(() => 1), row, row.length);
};

/** The logits of a written adapter, read again. */
async function readBack(
  c: Case,
  be: Backend,
  dir: string,
  ids: Int32Array,
): Promise<Float32Array> {
  const adapter = readPeft(dir), source = openModel(c.weights);
  const model = await loadModel(source, {
    backend: be,
    maxLength: 24,
    lora: adapter.settings,
  });
  writeAdapter(model, adapter);
  const logits = await packedLogits(model, oneRow(ids));
  source.close();
  model.close();
  return logits;
}

const floats = (path: string): Float32Array => new Float32Array(Uint8Array.from(readFileSync(path)).buffer);

describe.skipIf(!python)(`peft${why}`, () => {
  test("loads every kind of adapter that we train, with our logits, and so do we", async () => {
    const be = await createWasmBackend({ threads: 1 });
    await inFolder(async (dir) => {
      const ours = new Map<string, Float32Array>(), list: unknown[] = [];
      for (const name of NAMES) {
        const c = openCase(join(ROOT, `lora-${name}`)),
          ids = microBatches(c)[0].ids.slice(0, 24);
        ours.set(name, await trainAndWrite(c, be, join(dir, name), ids));
        list.push({ name, base: c.weights, ids: [...ids] });
        expect(
          relativeNorm(
            await readBack(c, be, join(dir, name), ids),
            ours.get(name)!,
          ),
          name,
        ).toBeLessThan(2e-6);
        c.golden.close();
      }
      writeFileSync(join(dir, "list.json"), JSON.stringify(list));
      const missing = await askPython<Record<string, string[]>>(
        "peft_check.py",
        dir,
      );
      for (const [name, logits] of ours) {
        expect(missing[name], name).toEqual([]);
        expect(relativeNorm(logits, floats(join(dir, `${name}.f32`))), name)
          .toBeLessThan(5e-6);
      }
    });
    be.close();
  });
});
