/**
 * The whole decoder on the f64 reference, every family: gradients against finite differences, checkpointed = plain,
 * packed = separate, prefill and decode = one pass, and a second step that makes the first one's calls.
 */
import { describe, expect, test } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import { describe as line, RecordingBackend } from "../../src/core/recording.ts";
import { numel, slice, type Tensor } from "../../src/core/tensor.ts";
import { loadModel, type LoadOptions, type Model } from "../../src/models/load.ts";
import type { LoraOptions } from "../../src/models/mod.ts";
import type { Checkpointing } from "../../src/nn/checkpoint.ts";
import { LEVEL } from "../../src/nn/mixer.ts";
import type { Param } from "../../src/nn/module.ts";
import { createRun } from "../../src/nn/run.ts";
import type { Batch } from "../../src/data/types.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { shake, TINY, tinyLora, tinySource } from "../models/tiny.ts";

const LENGTHS = [5, 1, 7];

/** A packed batch of sequences of these lengths; every third target is masked. */
function batchOf(lengths: readonly number[], from = 0): Batch {
  const pos = lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i)), n = pos.length;
  const cu = [0];
  for (const l of lengths) cu.push(cu.at(-1)! + l);
  const id = (i: number) => (i * 17 + 5) % 37;
  return {
    ids: Int32Array.from({ length: n }, (_, i) => id(from + i)),
    targets: Int32Array.from({ length: n }, (_, i) => id(from + i + 1)),
    weights: Float32Array.from({ length: n }, (_, i) => (from + i) % 3 === 2 ? 0 : 0.5 + 0.1 * ((from + i) % 4)),
    pos: Int32Array.from(pos),
    cu: Int32Array.from(cu),
  };
}

/** Passes over one model. */
class Rig {
  readonly arena: Arena;
  readonly #seed: Tensor;

  readonly model: Model;

  constructor(model: Model) {
    this.model = model;
    this.arena = new Arena(model.be, 1 << 20);
    this.#seed = this.#ints(Int32Array.of(3, 4));
  }

  #ints(x: Int32Array): Tensor {
    const t = this.arena.tensor("i32", x.length);
    this.model.be.upload(t, x);
    return t;
  }

  /** Σ weight·loss, after a backward when `grad`. */
  async loss(b: Batch, o: { grad: boolean; chunk?: number; adapters?: boolean }): Promise<number> {
    const { be, decoder } = this.model, mark = this.arena.mark(), n = b.ids.length;
    // Every row in a shuffled order, and one of weight 0 a second time: padding.
    const rows = Int32Array.from({ length: n + 1 }, (_, i) => i < n ? (i * 5 + 2) % n : b.weights.indexOf(0));
    const weights = this.arena.tensor("f32", n + 1), loss = this.arena.tensor("f32", n + 1);
    be.upload(weights, Float32Array.from(rows, (r) => b.weights[r]));
    const run = createRun({
      ...{ be, arena: this.arena, pos: this.#ints(b.pos), cu: this.#ints(b.cu), maxLen: n, keep: o.grad },
      ...{ seed: this.#seed, adapters: o.adapters },
    });
    const targets = this.#ints(Int32Array.from(rows, (r) => b.targets[r])),
      hidden = decoder.forward(this.#ints(b.ids), run);
    const input = { rows: this.#ints(rows), targets, weights, loss, chunk: o.chunk ?? 4, smoothing: 0.1, zLoss: 0.01 };
    const dHidden = decoder.loss(hidden, input, run, o.grad);
    if (dHidden) decoder.backward(dHidden, run);
    const losses = await read(this.model, loss);
    this.arena.release(mark);
    return losses.reduce((sum, x, i) => sum + x * b.weights[rows[i]], 0);
  }

  /** Logits of every row of a packed batch. */
  async logits(b: Batch): Promise<Float64Array> {
    const { be, decoder } = this.model, mark = this.arena.mark();
    const run = createRun({ be, arena: this.arena, pos: this.#ints(b.pos), cu: this.#ints(b.cu), maxLen: 16 });
    const out = await read(this.model, decoder.logits(decoder.forward(this.#ints(b.ids), run), run));
    this.arena.release(mark);
    return out;
  }

  zero(): void {
    for (const s of this.model.params!.slabs) this.model.be.fill(s.grad, 0);
  }

  async grads(): Promise<Map<string, Float64Array>> {
    const out = new Map<string, Float64Array>();
    for (const p of this.model.decoder.params()) out.set(p.name, await read(this.model, p.grad));
    return out;
  }
}

async function read(model: Model, t: Tensor): Promise<Float64Array> {
  const out = new Float64Array(numel(t));
  await model.be.download(t, out);
  return out;
}

async function load(family: string, o: Partial<LoadOptions> = {}): Promise<Model> {
  const model = await loadModel(tinySource(TINY[family]), { backend: new ReferenceBackend(), maxLength: 16, ...o });
  if (o.lora) shake(model.be, model.decoder.params());
  return model;
}

/** Central differences of the loss at three elements of a parameter. */
async function checkParam(rig: Rig, p: Param, grad: Float64Array, b: Batch): Promise<void> {
  const { be } = rig.model, values = await read(rig.model, p.value), step = 1e-5;
  for (const i of new Set([0, Math.floor(values.length / 2), values.length - 1])) {
    const at = async (delta: number) => {
      const moved = values.slice();
      moved[i] += delta;
      be.upload(p.value, moved);
      return await rig.loss(b, { grad: false });
    };
    const difference = (await at(step) - await at(-step)) / (2 * step);
    const error = Math.abs(difference - grad[i]) / Math.max(1, Math.abs(difference));
    expect(error, `${p.name}[${i}]: difference ${difference}, backward ${grad[i]}`).toBeLessThan(1e-7);
  }
  be.upload(p.value, values);
}

describe.each(Object.keys(TINY))("%s", (family) => {
  test("trained whole, has the gradients of its differences", async () => {
    const model = await load(family, { full: true }), rig = new Rig(model), b = batchOf(LENGTHS);
    await rig.loss(b, { grad: true });
    const grads = await rig.grads();
    for (const p of model.decoder.params()) await checkParam(rig, p, grads.get(p.name)!, b);
  });

  test("every level of checkpointing gives the loss and gradients of plain to the bit, with dropout", async () => {
    const b = batchOf(LENGTHS), layers = TINY[family].num_hidden_layers as number;
    const run = async (lora: LoraOptions, checkpoint: boolean | Checkpointing) => {
      const rig = new Rig(await load(family, { lora, checkpoint }));
      return { loss: await rig.loss(b, { grad: true }), grads: await rig.grads() };
    };
    for (const dora of [false, true]) {
      const lora = tinyLora({ dropout: 0.3, bias: "all", dora }), plain = await run(lora, false);
      expect(plain.grads.values().some((g) => g.some((x) => x !== 0))).toBe(true);
      for (const level of Object.values(LEVEL)) {
        expect(await run(lora, { levels: Array(layers).fill(level) }), `level ${level}`).toEqual(plain);
      }
      expect(await run(lora, true)).toEqual(plain);
    }
  });

  test("packed sequences have the logits of separate ones to the bit", async () => {
    const rig = new Rig(await load(family)), packed = await rig.logits(batchOf(LENGTHS));
    let at = 0;
    for (const n of LENGTHS) {
      const alone = await rig.logits(batchOf([n], at));
      expect(packed.slice(at * 37, (at + n) * 37)).toEqual(alone);
      at += n;
    }
  });

  test("prefill and decode with a cache give the logits of one pass", async () => {
    const model = await load(family), rig = new Rig(model), b = batchOf([9]), { be, decoder, config: c } = model;
    const whole = await rig.logits(b), arena = rig.arena;
    const rows = () => Array.from({ length: c.layers }, () => arena.act(2, 12, c.kvHeads, c.headDim));
    const k = rows(), v = rows(), parts = [[0, 4], [4, 5], [5, 9]];
    for (const t of [...k, ...v]) be.fill(t, 0);
    for (const [from, to] of parts) {
      const ints = (f: (i: number) => number) => {
        const t = arena.tensor("i32", to - from);
        be.upload(t, Int32Array.from({ length: to - from }, (_, i) => f(from + i)));
        return t;
      };
      const seq = ints(() => 1), pos = ints((i) => i);
      const run = createRun({ be, arena, pos, cu: seq, maxLen: 12, cache: { k, v, seq } });
      const found = await read(model, decoder.logits(decoder.forward(ints((i) => b.ids[i]), run), run));
      found.forEach((x, i) => expect(x).toBeCloseTo(whole[from * 37 + i], 11));
    }
  });
});

/** Copies as late as they may be made, each at its wait; until then what a fetch writes is NaN. */
class Late extends ReferenceBackend {
  readonly #waiting = new Map<number, () => void>();
  copies = 0;

  override stash(slot: number, x: Tensor): void {
    this.#waiting.set(slot, () => super.stash(slot, x));
  }
  override fetch(out: Tensor, slot: number): void {
    this.slotWait(slot);
    this.fill(out, NaN);
    this.#waiting.set(slot, () => super.fetch(out, slot));
  }
  override slotWait(slot: number): void {
    const copy = this.#waiting.get(slot);
    this.#waiting.delete(slot);
    if (copy) this.copies++;
    copy?.();
  }
}

test.each([1, 2, 3, 5])(
  "inputs in host memory change no bit of %d layers, copied at once or at the last moment",
  async (layers) => {
    const hf = { ...TINY.llama, num_hidden_layers: layers }, b = batchOf(LENGTHS), found = [];
    const plain = { levels: Array(layers).fill(LEVEL.input) };
    for (
      const [be, checkpoint] of [
        [new ReferenceBackend(), plain],
        [new ReferenceBackend(), { ...plain, offload: true }],
        [new Late(), { ...plain, offload: true }],
        [new Late(), { levels: Array(layers).fill(LEVEL.heads), offload: true }],
        [new Late(), { levels: Array(layers).fill(LEVEL.all), offload: true }],
      ] as const
    ) {
      const model = await loadModel(tinySource(hf), { backend: be, maxLength: 16, lora: tinyLora(), checkpoint });
      shake(be, model.decoder.params());
      model.decoder.placeOffload(b.ids.length);
      const rig = new Rig(model);
      for (let pass = 0; pass < 2; pass++) {
        rig.zero();
        found.push({ loss: await rig.loss(b, { grad: true }), grads: await rig.grads() });
      }
      if (be instanceof Late) expect(be.copies).toBe(2 * 2 * Math.max(0, layers - 2));
      model.decoder.placeOffload(0);
    }
    for (const f of found) expect(f).toEqual(found[0]);
  },
);

test("rsLoRA, trained biases, copies of embedding and head: each has the gradients of its differences", async () => {
  const lora = tinyLora({ bias: "all", modulesToSave: ["embed_tokens", "lm_head", "norm"], rslora: true });
  const model = await load("llama", { lora }), rig = new Rig(model), b = batchOf(LENGTHS);
  await rig.loss(b, { grad: true });
  const grads = await rig.grads();
  expect([...grads.keys()].filter((n) => n.includes("modules_to_save")).length).toBeGreaterThan(3);
  for (const p of model.decoder.params()) await checkParam(rig, p, grads.get(p.name)!, b);
});

test("LoRA on the embedding and the tied head has the gradients of its differences", async () => {
  const model = await load("gemma2", { lora: tinyLora({ targetModules: ["embed_tokens", "q_proj", "lm_head"] }) });
  const rig = new Rig(model), b = batchOf(LENGTHS);
  await rig.loss(b, { grad: true });
  const grads = await rig.grads();
  for (const p of model.decoder.params()) await checkParam(rig, p, grads.get(p.name)!, b);
});

test("the rows of a loss chunk change nothing", async () => {
  const b = batchOf(LENGTHS), rig = new Rig(await load("gemma2", { full: true }));
  const results: { loss: number; grad: Float64Array }[] = [];
  for (const chunk of [1, 5, 13, 100]) {
    rig.zero();
    results.push({
      loss: await rig.loss(b, { grad: true, chunk }),
      grad: (await rig.grads()).get("model.norm.weight")!,
    });
  }
  for (const r of results) {
    expect(r.loss).toBe(results[0].loss);
    r.grad.forEach((x, i) => expect(x).toBeCloseTo(results[0].grad[i], 12));
  }
});

test("a run without adapters is the base model, whatever was trained", async () => {
  const b = batchOf(LENGTHS), base = await new Rig(await load("llama")).loss(b, { grad: false });
  const saved = { bias: "all", modulesToSave: ["norm", "embed_tokens"] } as const;
  for (const o of [saved, { targetModules: ["embed_tokens"] }]) {
    const rig = new Rig(await load("llama", { lora: tinyLora(o) }));
    expect(await rig.loss(b, { grad: false, adapters: false })).toBe(base);
    expect(await rig.loss(b, { grad: false })).not.toBe(base);
  }
});

test("the second pass makes the first one's calls on the same handles and offsets", async () => {
  const rec = new RecordingBackend();
  const model = await loadModel(tinySource(TINY.gemma3), {
    backend: rec,
    maxLength: 16,
    lora: tinyLora({ dora: true }),
  });
  const rig = new Rig(model), calls: string[][] = [];
  for (let i = 0; i < 2; i++) {
    rec.take();
    await rig.loss(batchOf(LENGTHS), { grad: true });
    calls.push(rec.take().map(line));
  }
  expect(calls[0].length).toBeGreaterThan(300);
  expect(calls[1]).toEqual(calls[0]);
  expect(calls[0].some((c) => c.startsWith("alloc"))).toBe(false);
});

test("what nobody learns from is not computed: the gradient of a frozen embedding's output", async () => {
  const targetModules = ["q_proj", "k_proj", "v_proj"], counts = [];
  for (
    const o of [{ targetModules }, { targetModules: [...targetModules, "embed_tokens"] }, { targetModules, dora: true }]
  ) {
    const rec = new RecordingBackend(), source = tinySource(TINY.llama);
    const rig = new Rig(await loadModel(source, { backend: rec, maxLength: 16, lora: tinyLora(o) }));
    rec.take();
    await rig.loss(batchOf(LENGTHS), { grad: true });
    const ops = rec.take().map((c) => c.op);
    counts.push({
      norms: ops.filter((op) => op === "normBwd").length,
      products: ops.filter((op) => op === "matmul").length,
    });
  }
  const [frozen, trained, dora] = counts, layers = TINY.llama.num_hidden_layers as number;
  expect(frozen.norms).toBe(2 * layers);
  expect(dora.norms).toBe(2 * layers);
  expect(trained.norms).toBe(2 * layers + 1);
  // The embedding's adapter has one product in the forward and two in the backward; q, k, v have two each towards their input.
  expect(trained.products - frozen.products).toBe(3 + 6);
});

test.each([["all-linear", 3], [["down_proj"], 2]] as const)(
  "blocks below the lowest that learns have no backward, and the gradients of those above (%s) stay to the bit",
  async (targets, attentions) => {
    const hf = { ...TINY.llama, num_hidden_layers: 5 }, b = batchOf(LENGTHS), layersToTransform = [2, 3, 4];
    const lora = (o: Partial<LoraOptions>) =>
      tinyLora({ targetModules: targets as LoraOptions["targetModules"], ...o });
    /** Adapters have values by their names; those of the lower blocks change nothing. */
    const run = async (be: ReferenceBackend, o: Partial<LoraOptions>, checkpoint: boolean | Checkpointing) => {
      const model = await loadModel(tinySource(hf), { backend: be, maxLength: 16, lora: lora(o), checkpoint });
      for (const p of model.decoder.params()) {
        shake(be, [p], [...p.name].reduce((sum, c) => sum * 31 + c.charCodeAt(0) | 0, 7) >>> 0);
        if (/layers\.[01]\..*lora_B/.test(p.name)) be.fill(p.value, 0);
      }
      model.decoder.placeOffload(b.ids.length);
      const rig = new Rig(model), loss = await rig.loss(b, { grad: true }), grads = await rig.grads();
      model.decoder.placeOffload(0);
      return { loss, grads: new Map([...grads].filter(([name]) => !/layers\.[01]\./.test(name))) };
    };
    const whole = await run(new ReferenceBackend(), {}, false), late = new Late();
    expect(await run(new ReferenceBackend(), { layersToTransform }, false)).toEqual(whole);
    for (const level of Object.values(LEVEL)) {
      expect(await run(new ReferenceBackend(), { layersToTransform }, { levels: Array(5).fill(level) })).toEqual(whole);
    }
    const checkpoint = { levels: Array(5).fill(LEVEL.input), offload: true };
    expect(await run(late, { layersToTransform }, checkpoint)).toEqual(whole);
    expect(late.copies).toBe(2);

    const rec = new RecordingBackend(),
      model = await loadModel(tinySource(hf), {
        ...{ backend: rec, maxLength: 16, lora: lora({ layersToTransform }) },
      });
    rec.take();
    await new Rig(model).loss(b, { grad: true });
    expect(rec.take().filter((c) => c.op === "attentionBwd").length).toBe(attentions);
  },
);

test("hidden rows may be cut before the head", async () => {
  const model = await load("qwen3"), rig = new Rig(model), b = batchOf([6]), { be, decoder } = model;
  const whole = await rig.logits(b), ids = rig.arena.tensor("i32", 6), pos = rig.arena.tensor("i32", 6);
  const cu = rig.arena.tensor("i32", 2);
  be.upload(ids, b.ids);
  be.upload(pos, b.pos);
  be.upload(cu, b.cu);
  const run = createRun({ be, arena: rig.arena, pos, cu, maxLen: 6 });
  const last = await read(model, decoder.logits(slice(decoder.forward(ids, run), 5, 6), run));
  expect(last).toEqual(whole.slice(5 * 37));
});
