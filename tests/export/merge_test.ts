/** Merging, held against the formulas in plain f64, and the files that come of it. */
import { expect, test } from "vitest";
import { ConfigError } from "../../src/core/errors.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { type Adapter, adapterParts, type AdapterSettings } from "../../src/formats/adapter.ts";
import { type ModelSource, openModel } from "../../src/models/mod.ts";
import { readRowRange } from "../../src/models/rows.ts";
import { inFolder } from "../formats/files.ts";
import { EXPRESSIBLE, tinyAdapter, writeTinyFolder } from "./tiny_folder.ts";

/** Runs `work` on a tiny model's folder. */
function withModel(name: string, work: (source: ModelSource) => void | Promise<void>): Promise<void> {
  return inFolder(async (dir) => {
    await writeTinyFolder(dir, EXPRESSIBLE[name]!);
    const source = openModel(dir);
    try {
      await work(source);
    } finally {
      source.close();
    }
  });
}

/** W + s·B·A, and by rows to DoRA's lengths, in f64 from the tensors themselves. */
function expected(source: ModelSource, adapter: Adapter, hf: string, scale: number): Float64Array {
  const t = source.tensors.find((t) => t.hf === hf)!, [rows, cols] = t.shape as [number, number];
  const module = hf.replace(".weight", "");
  const a = adapter.tensors.get(`${module}.lora_A.weight`)!, b = adapter.tensors.get(`${module}.lora_B.weight`)!;
  const m = adapter.tensors.get(`${module}.lora_magnitude_vector`);
  const w = Float64Array.from(readRowRange(t, source.config, 0, rows)), rank = a.shape[0]!;
  for (let o = 0; o < rows; o++) {
    for (let i = 0; i < cols; i++) {
      for (let r = 0; r < rank; r++) w[o * cols + i]! += scale * b.values[o * rank + r]! * a.values[r * cols + i]!;
    }
    if (!m) continue;
    const length = Math.hypot(...w.subarray(o * cols, (o + 1) * cols));
    for (let i = 0; i < cols; i++) w[o * cols + i]! *= m.values[o]! / length;
  }
  return w;
}

const close = (got: Float32Array, wish: Float64Array) => {
  let worst = 0;
  for (let i = 0; i < wish.length; i++) worst = Math.max(worst, Math.abs(got[i]! - wish[i]!));
  return worst;
};

const VARIANTS: [string, Partial<AdapterSettings>, (rank: number) => number][] = [
  ["LoRA", {}, (r) => 6 / r],
  ["rsLoRA", { rslora: true }, (r) => 6 / Math.sqrt(r)],
  ["DoRA", { dora: true }, (r) => 6 / r],
  ["rank and alpha patterns", { rankPattern: { "mlp.*": 5 }, alphaPattern: { o_proj: 20 } }, (r) => 6 / r],
];

test.each(VARIANTS)("mergeModel() adds %s as its paper says, in any range of rows", async (_name, o, scale) => {
  await withModel("llama", (source) => {
    const adapter = tinyAdapter(source, o);
    const model = mergeModel(source, { ...adapterParts(adapter), full: false });
    for (const t of model.tensors) {
      const [rows, cols = 1] = t.shape as [number, number];
      if (!t.changed) {
        expect(t.rows(0, rows)).toEqual(readRowRange(t, source.config, 0, rows));
        continue;
      }
      const rank = adapter.tensors.get(t.hf.replace(".weight", ".lora_A.weight"))!.shape[0]!;
      const alpha = o.alphaPattern && t.hf.includes("o_proj") ? 20 / 6 : 1;
      const wish = expected(source, adapter, t.hf, alpha * scale(rank));
      expect(close(t.rows(0, rows), wish), t.hf).toBeLessThan(3e-6);
      expect(t.rows(5, 9)).toEqual(t.rows(0, rows).slice(5 * cols, 9 * cols));
    }
    expect(model.tensors.filter((t) => t.changed).length).toBe(7 * source.config.layers);
  });
});

test("merging takes whole tensors, biases and embeddings where peft has them", async () => {
  await withModel("llama with biases", (source) => {
    const plain = tinyAdapter(source);
    const shape = (hf: string) => source.tensors.find((t) => t.hf === hf)!.shape;
    const filled = (hf: string, value: number) => ({
      shape: shape(hf),
      values: new Float32Array(shape(hf).reduce((a, b) => a * b, 1)).fill(value),
    });
    const tensors = new Map([
      ...plain.tensors,
      ["model.norm.modules_to_save.weight", filled("model.norm.weight", 2)],
      ["model.layers.0.self_attn.q_proj.base_layer.bias", filled("model.layers.0.self_attn.q_proj.bias", 3)],
      ["model.layers.1.mlp.up_proj.bias", filled("model.layers.1.mlp.up_proj.bias", 4)],
    ]);
    const model = mergeModel(source, { ...adapterParts({ ...plain, tensors }), full: false });
    const value = (hf: string) => model.tensors.find((t) => t.hf === hf)!.rows(0, 1)[0];
    expect(value("model.norm.weight")).toBe(2);
    expect(value("model.layers.0.self_attn.q_proj.bias")).toBe(3);
    expect(value("model.layers.1.mlp.up_proj.bias")).toBe(4);
    expect(model.config.tied).toBe(true);
  });
});

test("a tied head that was trained apart becomes a tensor of its own", async () => {
  await withModel("qwen2", (source) => {
    const plain = tinyAdapter(source);
    const table = source.tensors.find((t) => t.ours === "embed")!;
    const values = new Float32Array(table.shape[0]! * table.shape[1]!).fill(0.5);
    const embedding = new Map([...plain.tensors, ["model.embed_tokens.weight", { shape: table.shape, values }]]);
    const model = mergeModel(source, { ...adapterParts({ ...plain, tensors: embedding }), full: false });
    const [embed, head] = ["model.embed_tokens.weight", "lm_head.weight"].map((hf) =>
      model.tensors.find((t) => t.hf === hf)!
    );
    expect(embed!.rows(0, 1)[0]).toBe(0.5);
    expect(head!.rows(0, 4)).toEqual(readRowRange(table, source.config, 0, 4));
    expect([model.config.tied, model.hf.tie_word_embeddings]).toEqual([false, false]);
    // A full fine-tune trains the one table, which stays the head.
    const whole = new Map([["model.embed_tokens.weight", { shape: table.shape, values }]]);
    const full = mergeModel(source, { pairs: new Map(), embeddings: new Map(), whole, full: true });
    expect(full.config.tied).toBe(true);
    expect(full.tensors.some((t) => t.hf === "lm_head.weight")).toBe(false);
  });
});

test("adapters of another model, and values that are not finite, are refused by name", async () => {
  await withModel("llama", (source) => {
    const plain = tinyAdapter(source);
    const merge = (tensors: Adapter["tensors"]) =>
      mergeModel(source, { ...adapterParts({ ...plain, tensors }), full: false });
    const q = "model.layers.0.self_attn.q_proj";
    const other = new Map(plain.tensors);
    for (const part of ["lora_A", "lora_B"]) {
      other.set(`model.layers.9.self_attn.q_proj.${part}.weight`, other.get(`${q}.${part}.weight`)!);
    }
    expect(() => merge(other)).toThrow("has no 'model.layers.9.self_attn.q_proj.weight'");
    const narrow = new Map(plain.tensors);
    narrow.set(`${q}.lora_A.weight`, { shape: [3, 5], values: new Float32Array(15) });
    expect(() => merge(narrow)).toThrow("the trained part is for [128,5]");
    const broken = new Map(plain.tensors);
    broken.set(`${q}.lora_B.weight`, { shape: [128, 3], values: new Float32Array(384).fill(NaN) });
    expect(() => merge(broken).tensors.find((t) => t.hf === `${q}.weight`)!.rows(0, 2)).toThrow(ConfigError);
  });
});
