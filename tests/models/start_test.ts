/** How adapters start: default, gaussian, PiSSA, LoftQ, DoRA's magnitudes; and the 4-bit base LoftQ needs. */
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { numel, type Tensor } from "../../src/core/tensor.ts";
import { dequantize } from "../../src/formats/dequantize.ts";
import { quantizeNf4 } from "../../src/formats/nf4.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readBytes, readFloats } from "../../src/formats/stored.ts";
import {
  loadModel,
  type LoraOptions,
  type Model,
  quantizeSource,
  readAdapter,
  writeAdapter,
} from "../../src/models/mod.ts";
import { symmetricEigen, topSingular } from "../../src/models/low_rank.ts";
import type { ModelSource } from "../../src/models/source.ts";
import type { Batch } from "../../src/data/types.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { shake, TINY, tinyLora, tinySource } from "./tiny.ts";

const file = openSafetensors(fileURLToPath(new URL("../fixtures/nf4.safetensors", import.meta.url)));
afterAll(() => file.close());

/** Rows of 64 and more, so that nf4 blocks fit. */
const WIDE = { ...TINY.llama, hidden_size: 64, intermediate_size: 128, head_dim: 16, attention_bias: false };

const BATCH: Batch = {
  ids: Int32Array.from({ length: 12 }, (_, i) => (i * 7 + 3) % 37),
  targets: Int32Array.from({ length: 12 }, (_, i) => (i * 7 + 10) % 37),
  weights: new Float32Array(12).fill(1),
  pos: Int32Array.from({ length: 12 }, (_, i) => i),
  cu: Int32Array.of(0, 12),
};

const PASS = { maxTokens: 12, maxSequences: 1, maxLength: 12 };

async function load(source: ModelSource, lora?: LoraOptions, be: Backend = new ReferenceBackend()): Promise<Model> {
  return await loadModel(source, { backend: be, maxLength: 12, lora });
}

/** Losses of every token, which are the model's answers in one vector. */
async function answers(model: Model, adapters = true): Promise<number[]> {
  return [...(await new Stepper(model, null, PASS).evaluate(BATCH, { adapters })).perToken];
}

const close = (x: readonly number[], digits: number) => x.map((v) => expect.closeTo(v, digits));

async function values(be: Backend, t: Tensor): Promise<Float64Array> {
  const out = new Float32Array(numel(t));
  await be.download(t, out);
  return Float64Array.from(out);
}

/** B·A, row by row. */
async function product(model: Model, module: string): Promise<Float64Array> {
  const [a, b] = ["A", "B"].map((k) => model.params!.get(`${module}.lora_${k}.weight`)!.value);
  const [av, bv] = [await values(model.be, a), await values(model.be, b)], [r, I] = a.shape, [O] = b.shape;
  const out = new Float64Array(O * I);
  for (let o = 0; o < O; o++) {
    for (let j = 0; j < r; j++) for (let i = 0; i < I; i++) out[o * I + i] += bv[o * r + j] * av[j * I + i];
  }
  return out;
}

/** Squares of all singular values, largest first, from the whole Gram matrix. */
function squares(w: Float64Array, O: number, I: number): number[] {
  const rows = Array.from({ length: O }, (_, o) => w.subarray(o * I, (o + 1) * I));
  const gram = rows.map((a) => Float64Array.from(rows, (b) => a.reduce((s, x, i) => s + x * b[i], 0)));
  return symmetricEigen(gram).values;
}

const sum = (x: ArrayLike<number>): number => Array.from(x).reduce((a, b) => a + b, 0);
const norm2 = (x: Float64Array): number => x.reduce((s, v) => s + v * v, 0);

test("the default start is the base model, and repeats for a seed", async () => {
  const source = tinySource(WIDE), base = await answers(await load(source));
  const [one, two, other] = await Promise.all([1, 1, 2].map((seed) => load(source, tinyLora({ seed }))));
  expect(await answers(one)).toEqual(base);
  const name = "model.layers.1.mlp.up_proj.lora_A.weight";
  const [a, b, c] = await Promise.all([one, two, other].map((m) => values(m.be, m.params!.get(name)!.value)));
  expect(b).toEqual(a);
  expect(c).not.toEqual(a);
  expect(Math.max(...a.map(Math.abs))).toBeLessThanOrEqual(1 / 8); // ±1/√64
  expect(norm2(a) / a.length).toBeGreaterThan(1 / 64 / 4); // a uniform's variance is a third of the bound's square
});

test("a DoRA start is the base model too", async () => {
  const source = tinySource(WIDE), base = await answers(await load(source));
  expect(await answers(await load(source, tinyLora({ dora: true, start: "gaussian" })))).toEqual(close(base, 5));
});

describe.each(
  [["reference", () => new ReferenceBackend()], ["wasm", () => createWasmBackend({ threads: 1 })]] as const,
)(
  "on %s",
  (_, open) => {
    test("PiSSA trains the principal part and freezes the rest; together they are the base", async () => {
      const be = await open(), source = tinySource(WIDE), base = await answers(await load(source));
      const model = await load(
        source,
        tinyLora({ r: 3, alpha: 6, start: "pissa", targetModules: ["k_proj", "down_proj"] }),
        be,
      );
      expect(await answers(model)).toEqual(close(base, 4));
      expect((await answers(model, false))[3]).not.toBeCloseTo(base[3], 3);
      const t = source.tensors.find((x) => x.ours === "layers.1.k")!, w = Float64Array.from(readFloats(t.stored));
      const ba = await product(model, "model.layers.1.self_attn.k_proj"),
        all = squares(w, ...t.shape as [number, number]);
      const left = norm2(w.map((x, i) => x - 2 * ba[i])); // scale 2
      expect(left / sum(all.slice(3))).toBeCloseTo(1, 4); // Eckart & Young: no rank-3 matrix leaves less
      be.close();
    });

    test("LoftQ makes up for what four bits took, as far as its rank goes", async () => {
      const be = await open(), exact = tinySource(WIDE), source = quantizeSource(exact);
      const model = await load(source, tinyLora({ r: 4, alpha: 8, start: "loftq", targetModules: ["up_proj"] }), be);
      const t = source.tensors.find((x) => x.ours === "layers.0.up")!, [O, I] = t.shape;
      expect(model.weights.get("layers.0.up")!.dtype).toBe("nf4");
      const w = Float64Array.from(readFloats(exact.tensors.find((x) => x.ours === "layers.0.up")!.stored));
      const q = dequantize("nf4", readBytes(t.stored)),
        lost = w.map((x, i) => x - q[i]),
        ba = await product(model, "model.layers.0.mlp.up_proj");
      const left = norm2(lost.map((x, i) => x - 2 * ba[i]));
      expect(left / sum(squares(lost, O, I).slice(4))).toBeCloseTo(1, 3);
      expect(left).toBeLessThan(norm2(lost));
      be.close();
    });
  },
);

test("a trained PiSSA adapter is written for the weights as they lie in the file", async () => {
  const source = tinySource(WIDE), lora = tinyLora({ r: 2, alpha: 4, start: "pissa", rankPattern: { v_proj: 3 } });
  const model = await load(source, lora),
    optimizer = createOptimizer(model.be, model.params!, {
      ...{ name: "adamw_torch", lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 0 },
      ...{ schedule: "constant", warmupSteps: 0, totalSteps: 3 },
    });
  const stepper = new Stepper(model, optimizer, PASS);
  for (let t = 1; t <= 3; t++) await stepper.step([BATCH], { lr: 1e-2, t });
  const adapter = await readAdapter(model), trained = await answers(model);
  expect([adapter.settings.r, adapter.settings.alpha, adapter.settings.rankPattern]).toEqual([4, 8, { v_proj: 6 }]);
  const plain = await load(source, adapter.settings);
  writeAdapter(plain, adapter);
  expect(await answers(plain)).toEqual(close(trained, 4));
  expect((await answers(plain, false))[0]).not.toBeCloseTo(trained[0], 3);
});

test("an embedding starts with A at zero and a normal B, whatever the start, and PiSSA leaves its rank and scale", async () => {
  const source = tinySource(WIDE), base = await answers(await load(source));
  const lora = tinyLora({ r: 2, alpha: 8, start: "pissa", rslora: true, targetModules: ["v_proj", "embed_tokens"] });
  const model = await load(source, lora), B = "model.embed_tokens.lora_embedding_B";
  expect(await answers(model)).toEqual(close(base, 4));
  const b = await values(model.be, model.params!.get(B)!.value);
  expect(norm2(b) / b.length).toBeCloseTo(1, 0);
  shake(model.be, model.params!.list);
  const trained = await answers(model), adapter = await readAdapter(model);
  expect(adapter.tensors.get("model.embed_tokens.lora_embedding_A")!.shape).toEqual([2, 37]);
  const plain = await load(source, { ...adapter.settings, start: "default" });
  writeAdapter(plain, adapter);
  expect(await answers(plain)).toEqual(close(trained, 4));
});

test("an adapter goes out and comes back under peft's names", async () => {
  const source = tinySource(WIDE), lora = tinyLora({ dora: true, modulesToSave: ["norm"], bias: "lora_only" });
  const model = await load(source, lora), adapter = await readAdapter(model);
  expect([...adapter.tensors.keys()]).toContain("model.norm.weight");
  expect([...adapter.tensors.keys()]).toContain("model.layers.0.self_attn.q_proj.lora_magnitude_vector");
  const other = await load(source, { ...lora, seed: 99 });
  writeAdapter(other, adapter);
  expect(await readAdapter(other)).toEqual({ ...adapter, settings: { ...lora, seed: 99 } });
  const extra = new Map([
    ...adapter.tensors,
    ["model.x.lora_A.weight", { shape: [1], values: new Float32Array(1) }] as const,
  ]);
  expect(() => writeAdapter(other, { tensors: extra })).toThrow("the model has no model.x.lora_A.weight");
  const { "0": first, ...rest } = Object.fromEntries([...adapter.tensors].map((e, i) => [i, e]));
  expect(() => writeAdapter(other, { tensors: new Map(Object.values(rest)) })).toThrow(`'${first[0]}' is missing`);
});

test("LoftQ without quantised weights and PiSSA on a tied head are refused", async () => {
  await expect(load(tinySource(WIDE), tinyLora({ start: "loftq" }))).rejects.toThrow("the weights are not quantised");
  const tied = tinyLora({ start: "pissa", targetModules: ["lm_head"] });
  await expect(load(tinySource(TINY.qwen3), tied)).rejects.toThrow("its weight is the embedding's too");
});

test("nf4 bytes are bitsandbytes'", () => {
  const x = readFloats(file.tensors.get("x")!), packed = readBytes(file.tensors.get("packed")!);
  const absmax = readFloats(file.tensors.get("absmax")!), bytes = quantizeNf4(x);
  for (let block = 0; block < absmax.length; block++) {
    expect([...bytes.subarray(block * 36, block * 36 + 32)], `block ${block}`).toEqual(
      [...packed.subarray(block * 32, block * 32 + 32)],
    );
    expect(new DataView(bytes.buffer).getFloat32(block * 36 + 32, true)).toBe(absmax[block]);
  }
  expect(dequantize("nf4", bytes)).toEqual(readFloats(file.tensors.get("back")!));
});

test("a 4-bit source leaves embedding, head, vectors, and rows that fit no block", () => {
  const types = quantizeSource(tinySource(WIDE)).tensors.map((t) => [t.ours, t.stored.dtype]);
  expect(Object.fromEntries(types)).toMatchObject({ embed: "f32", head: "f32", norm: "f32", "layers.0.q": "nf4" });
  expect(quantizeSource(tinySource(TINY.llama)).tensors.every((t) => t.stored.dtype === "f32")).toBe(true);
});

test("the top singular triplets of a matrix with close singular values are found", async () => {
  const be = new ReferenceBackend(),
    [O, I] = [40, 33],
    w: Tensor = { handle: be.alloc(O * I * 4), byteOffset: 0, dtype: "f32", shape: [O, I] };
  const values = Float64Array.from({ length: O * I }, (_, n) => Math.sin(n * n * 0.37) + 0.1 * Math.cos(n));
  be.upload(w, values);
  const { u, s, v } = await topSingular(be, w, 4), all = squares(values, O, I);
  s.forEach((x, j) => expect(x * x / all[j]).toBeCloseTo(1, 5));
  u.forEach((row, j) => expect(Math.hypot(...row)).toBeCloseTo(1, 6) ?? expect(Math.hypot(...v[j])).toBeCloseTo(1, 6));
  // W·v = s·u for each
  v.forEach((row, j) => {
    for (let o = 0; o < O; o++) {
      const wv = row.reduce((sum, x, i) => sum + x * values[o * I + i], 0);
      expect(wv).toBeCloseTo(s[j] * u[j][o], 3);
    }
  });
});
