/**
 * Training on a quantised GGUF: its blocks stay blocks on the backend, and losses and gradients are those of the same
 * values in f32.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { isQuant } from "../../src/core/dtype.ts";
import { numel } from "../../src/core/tensor.ts";
import type { Batch } from "../../src/data/types.ts";
import { writeModelGguf } from "../../src/export/gguf.ts";
import { writeModelFolder } from "../../src/export/hugging_face.ts";
import { mergeModel } from "../../src/export/merge.ts";
import type { Quantization } from "../../src/export/quantization.ts";
import { loadModel, openModel, writeAdapter } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder } from "../formats/files.ts";
import { EXPRESSIBLE, tinyAdapter, writeTinyFolder } from "./tiny_folder.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1 });
});
afterAll(() => backend.close());

const N = 40;
/** One sequence whose last half is trained. */
const BATCH: Batch = {
  ids: Int32Array.from({ length: N }, (_, i) => (17 * i * i + 5 * i + 3) % 271),
  targets: Int32Array.from({ length: N }, (_, i) => (17 * (i + 1) * (i + 1) + 5 * (i + 1) + 3) % 271),
  weights: Float32Array.from({ length: N }, (_, i) => i >= N / 2 && i < N - 1 ? 1 : 0),
  pos: Int32Array.from({ length: N }, (_, i) => i),
  cu: Int32Array.of(0, N),
};

/** Rows of 256 in every linear, so that no type falls back. */
const SHAPE = {
  ...EXPRESSIBLE.llama,
  hidden_size: 256,
  intermediate_size: 512,
  num_attention_heads: 8,
  num_hidden_layers: 2,
};

/** Loss, and the gradient of every trained tensor; and the types that the linears' weights have on the backend. */
async function gradientsOf(path: string) {
  const source = openModel(path), adapter = tinyAdapter(source);
  const model = await loadModel(source, { backend, maxLength: N, lora: adapter.settings });
  writeAdapter(model, adapter);
  source.close();
  const optim = {
    ...{ name: "adamw_torch", lr: 1e-3, betas: [0.9, 0.999] as const, eps: 1e-8, weightDecay: 0, maxGradNorm: 0 },
    ...{ schedule: "constant" as const, warmupSteps: 0, totalSteps: 1 },
  };
  const optimizer = createOptimizer(backend, model.params!, optim);
  const stepper = new Stepper(model, optimizer, { maxTokens: N, maxSequences: 1, maxLength: N });
  const { loss } = await stepper.gradients([BATCH], { t: 1 });
  const grads = new Map<string, Float32Array>();
  for (const p of model.params!.list) {
    const g = new Float32Array(numel(p.grad));
    await backend.download(p.grad, g);
    grads.set(p.name, g);
  }
  const types = new Set([...model.weights.values()].filter((t) => t.shape.length > 1).map((t) => t.dtype));
  stepper.close();
  optimizer.close();
  model.close();
  return { loss, grads, types };
}

const relative = (x: Float32Array, y: Float32Array): number => {
  let [off, norm] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    off += (x[i]! - y[i]!) ** 2;
    norm += y[i]! ** 2;
  }
  return Math.sqrt(off / norm);
};

const TYPES: Quantization[] = ["q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_xs", "iq4_nl", "q5_0", "q5_1"];

describe("a quantised GGUF as the frozen base of LoRA", () => {
  test.each(TYPES)("%s: losses and gradients are those of its values in f32", async (quantization) => {
    await inFolder(async (dir) => {
      await writeTinyFolder(dir, SHAPE);
      const original = openModel(dir), tokenizer = loadTokenizer(dir), codec = await openBlockCodec(1);
      const gguf = join(dir, "blocks.gguf"), plain = join(dir, "plain");
      await writeModelGguf(gguf, mergeModel(original, null), { quantization, tokenizer, codec });
      codec.close();
      original.close();
      const source = openModel(gguf);
      await writeModelFolder(plain, mergeModel(source, null), { tokenizer, dtype: "f32" });
      source.close();
      const [blocks, floats] = [await gradientsOf(gguf), await gradientsOf(plain)];
      expect([...blocks.types].every(isQuant)).toBe(true);
      expect([...floats.types]).toEqual(["f32"]);
      expect(Math.abs(blocks.loss / floats.loss - 1)).toBeLessThan(1e-5);
      for (const [name, g] of floats.grads) expect(relative(blocks.grads.get(name)!, g), name).toBeLessThan(5e-5);
    });
  });
});
