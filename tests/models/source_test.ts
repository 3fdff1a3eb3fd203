/** Opening and loading: folders, shards, GGUF files of every family, and what does not fit. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DType } from "../../src/core/dtype.ts";
import { byteLength, type Tensor } from "../../src/core/tensor.ts";
import { dequantize } from "../../src/formats/dequantize.ts";
import { encodeBf16, encodeHalves } from "../../src/formats/float16.ts";
import { type GgufMeta, writeGguf } from "../../src/formats/gguf_write.ts";
import { quantize } from "../../src/formats/quantize.ts";
import { floatTensor, type TensorToWrite, writeSafetensorsFolder } from "../../src/formats/safetensors_write.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { loadModel, type LoraOptions, type Model, openModel } from "../../src/models/mod.ts";
import type { GgufReader, HfConfig } from "../../src/models/config.ts";
import type { ModelSource } from "../../src/models/source.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { familyOf } from "../../src/models/registry.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { TINY, tinyLora, tinySource } from "./tiny.ts";

let dir = "";
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "unsloth-models-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A folder as transformers writes it. */
async function writeFolder(name: string, s: ModelSource, o: { limit?: number; tensors?: TensorToWrite[] } = {}) {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, "config.json"), JSON.stringify(s.hf));
  const tensors = s.tensors.map((t) => floatTensor(t.hf, readFloats(t.stored), t.shape));
  await writeSafetensorsFolder(path, o.tensors ?? tensors, o.limit);
  return path;
}

/** Rows of each head as llama.cpp's converter lays them: pair by pair instead of half by half. */
function interleave(x: Float32Array, rows: number, heads: number): Float32Array {
  const d = rows / heads, width = x.length / rows, out = new Float32Array(x.length);
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < d / 2; i++) {
      for (const half of [0, 1]) {
        const from = (h * d + half * d / 2 + i) * width, to = (h * d + 2 * i + half) * width;
        out.set(x.subarray(from, from + width), to);
      }
    }
  }
  return out;
}

/** The values of a tensor as a GGUF holds them. */
function ggufValues(s: ModelSource, t: ModelSource["tensors"][number]): Float32Array {
  const x = readFloats(t.stored), { config: c } = s;
  if (t.ggufAs === "plusOne") return x.map((v) => v + 1);
  if (!t.ggufAs) return x;
  return interleave(x, t.shape[0], t.ggufAs === "permuteQ" ? c.heads : c.kvHeads);
}

async function writeGgufModel(name: string, s: ModelSource, block: DType = "f32"): Promise<string> {
  const path = join(dir, `${name}.gguf`), text = { type: "string", array: false } as const;
  const meta: GgufMeta = new Map([["general.architecture", { value: s.family.ggufArch, type: text }]]);
  for (const [key, field] of s.family.ggufMeta(s.config, s.hf)) meta.set(key, field);
  meta.set("tokenizer.ggml.eos_token_id", { value: 2, type: { type: "u32", array: false } });
  const tensors = s.tensors.map((t): TensorToWrite => {
    const values = ggufValues(s, t), dtype = t.shape.length > 1 && t.shape[1] % 32 === 0 ? block : "f32";
    if (dtype === "f32") return floatTensor(t.gguf, values, t.shape);
    return { name: t.gguf, dtype, shape: t.shape, chunks: () => [quantize(dtype, values)] };
  });
  const extra = s.family.ggufExtra(s.config, s.hf).map((e) => floatTensor(e.name, e.values, [e.values.length]));
  await writeGguf(path, meta, [...tensors, ...extra]);
  return path;
}

/** Every tensor's bytes on the device, by our names. */
async function held(model: Model): Promise<Map<string, { dtype: DType; bytes: Uint8Array }>> {
  const out = new Map<string, { dtype: DType; bytes: Uint8Array }>();
  for (const [name, t] of model.weights) {
    const bytes = new Uint8Array(byteLength(t));
    await model.be.download(t, bytes);
    out.set(name, { dtype: t.dtype, bytes });
  }
  return out;
}

const load = async (s: ModelSource): Promise<Model> => {
  const model = await loadModel(s, { backend: new ReferenceBackend(), maxLength: 16 });
  s.close();
  return model;
};

/** Families with a GGUF of our tiny config; the windows and NoPE pattern must be the runtime's. */
const EXPRESSIBLE = {
  ...TINY,
  mistral: { ...TINY.mistral, sliding_window: null },
  qwen2: { ...TINY.qwen2, hidden_size: 24 },
  phi3: { ...TINY.phi3, hidden_size: 24 },
  gemma2: { ...TINY.gemma2, query_pre_attn_scalar: 6 },
  gemma3: { ...TINY.gemma3, query_pre_attn_scalar: 6, num_hidden_layers: 7, sliding_window_pattern: 6 },
  smollm3: { ...TINY.smollm3, num_hidden_layers: 5, no_rope_layers: [1, 1, 1, 0, 1] },
  "llama3 rope": {
    ...TINY.llama,
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8,
    },
  },
  "phi3 longrope": {
    ...{ ...TINY.phi3, hidden_size: 24, original_max_position_embeddings: 8, partial_rotary_factor: 1 },
    rope_scaling: { type: "longrope", long_factor: [1, 2, 3], short_factor: [1, 1.1, 1.2] },
  },
};

describe.each(Object.entries(EXPRESSIBLE))("%s", (name, hf) => {
  test("a folder, whole or in shards, loads the values it was written with", async () => {
    const s = tinySource(hf), wanted = await held(await load(s));
    const whole = await load(openModel(await writeFolder(name, s)));
    const sharded = await load(openModel(await writeFolder(`${name}-shards`, s, { limit: 3000 })));
    expect(await held(whole)).toEqual(wanted);
    expect(await held(sharded)).toEqual(wanted);
  });

  test("a GGUF gives the same weights and the same configuration", async () => {
    const s = tinySource(hf), file = openModel(await writeGgufModel(name, s));
    // (x + 1) - 1 in f32 is not x: gemma's norms are compared to 1e-7.
    const close = (x: Uint8Array) => Array.from(new Float32Array(x.slice().buffer), (v) => expect.closeTo(v, 6));
    const wanted = await held(await load(s)), config = file.config, found = await held(await load(file));
    for (const [key, { bytes }] of wanted) {
      expect([...new Float32Array(found.get(key)!.bytes.buffer)], key).toEqual(close(bytes));
    }
    for (let n = 0; n < s.config.layers; n++) {
      expect(config.window(n), `window of layer ${n}`).toBe(s.config.window(n));
      for (const length of [4, 16]) {
        const [a, b] = [config.rope(n, length), s.config.rope(n, length)];
        expect(a && [...a.freqs]).toEqual(b && Array.from(b.freqs, (f) => expect.closeTo(f, 6)));
        expect(a?.factor).toEqual(b && expect.closeTo(b.factor, 6) || undefined);
      }
    }
    const { rope: _r, window: _w, arch: _a, bos: _b, pad: _p, ...plain } = s.config;
    expect(config).toMatchObject({ ...plain, norm: { ...plain.norm, eps: 1e-5 } });
  });
});

test("q and k rows of a block format are put back whole, their bytes untouched", async () => {
  const hf = { ...TINY.llama, hidden_size: 64, head_dim: 16, attention_bias: false }, s = tinySource(hf);
  const found = await held(await load(openModel(await writeGgufModel("q8", s, "q8_0"))));
  for (const name of ["layers.1.q", "layers.2.k", "layers.0.v", "embed"]) {
    const t = s.tensors.find((x) => x.ours === name)!, { dtype, bytes } = found.get(name)!;
    expect(dtype).toBe("q8_0");
    expect([...bytes]).toEqual([...quantize("q8_0", readFloats(t.stored))]); // a row's blocks do not depend on its place
    expect(dequantize("q8_0", bytes).length).toBe(t.shape[0] * 64);
  }
});

test.each(
  [["f16", encodeHalves], ["bf16", encodeBf16]] as const,
)("%s weights stay as they are, vectors become f32", async (dtype, encode) => {
  const s = tinySource(TINY.llama);
  const tensors = s.tensors.map((t): TensorToWrite => {
    return { name: t.hf, dtype, shape: t.shape, chunks: () => [encode(readFloats(t.stored))] };
  });
  const model = await load(openModel(await writeFolder(dtype, s, { tensors }))), found = await held(model);
  const norm = s.tensors.find((t) => t.ours === "norm")!, head = s.tensors.find((t) => t.ours === "head")!;
  expect([...found.get("head")!.bytes]).toEqual([...encode(readFloats(head.stored))]);
  expect(found.get("norm")!.dtype).toBe("f32");
  expect([...new Float32Array(found.get("norm")!.bytes.buffer)]).toEqual(
    [...dequantize(dtype, encode(readFloats(norm.stored)))],
  );
});

test("a type the backend does not read is held as f32, and said so", async () => {
  class Plain extends ReferenceBackend {
    override supports(d: DType): boolean {
      return d === "f32";
    }
  }
  const s = tinySource({ ...TINY.llama, hidden_size: 64, head_dim: 16 }), notes: string[] = [];
  const source = openModel(await writeGgufModel("plain", s, "q8_0"));
  const model = await loadModel(source, { backend: new Plain(), maxLength: 16, note: (n) => notes.push(n) });
  expect([...model.weights.values()].every((t: Tensor) => t.dtype === "f32")).toBe(true);
  expect(notes).toEqual([
    expect.stringMatching(/^\d+ tensors of type q8_0 are held as f32: the backend does not read/),
  ]);
});

test("missing, unknown and misshapen tensors are named all at once", async () => {
  const s = tinySource(TINY.llama), tensors = s.tensors.map((t) => floatTensor(t.hf, readFloats(t.stored), t.shape));
  const cut = tensors.filter((t) => t.name !== "model.norm.weight" && !t.name.endsWith("0.mlp.up_proj.weight"));
  const wrong = cut.map((t) => t.name === "lm_head.weight" ? floatTensor(t.name, new Float32Array(24), [2, 12]) : t);
  const path = await writeFolder("broken", s, {
    tensors: [...wrong, floatTensor("model.extra", new Float32Array(1), [1])],
  });
  expect(() => openModel(path)).toThrow(
    /'model.norm.weight' is missing; 'lm_head.weight' is \[2,12\] and must be \[37,12\].*up_proj.weight' is missing.*'model.extra' is not expected/,
  );
});

test("a tied model may carry its head a second time, or alone; a head that differs is one of its own", async () => {
  const s = tinySource(TINY.qwen2), tensors = s.tensors.map((t) => floatTensor(t.hf, readFloats(t.stored), t.shape));
  const embed = s.tensors.find((t) => t.ours === "embed")!, values = readFloats(embed.stored);
  const head = (x: Float32Array) => floatTensor("lm_head.weight", x, embed.shape);
  const buffer = floatTensor("model.layers.0.self_attn.rotary_emb.inv_freq", new Float32Array(1), [1]);
  const open = async (name: string, all: TensorToWrite[]) => openModel(await writeFolder(name, s, { tensors: all }));

  const twice = await open("tied", [...tensors, head(values), buffer]);
  expect([twice.config.tied, twice.hf.tie_word_embeddings]).toEqual([true, true]);
  const alone = await open("head-alone", [...tensors.filter((t) => t.name !== embed.hf), head(values)]);
  expect(alone.config.tied).toBe(true);
  expect([...readFloats(alone.tensors.find((t) => t.ours === "embed")!.stored)]).toEqual([...values]);

  const other = values.map((x, i) => i === values.length - 1 ? x + 1 : x);
  const apart = await open("apart", [...tensors, head(other)]);
  expect([apart.config.tied, apart.hf.tie_word_embeddings]).toEqual([false, false]);
  expect([...readFloats(apart.tensors.find((t) => t.ours === "head")!.stored)]).toEqual([...other]);
  await expect(open("misshapen", [...tensors, floatTensor("lm_head.weight", new Float32Array(1), [1])])).rejects
    .toThrow(
      "'lm_head.weight' is [1] and must be [37,12]",
    );
});

test("the ends of text of config.json and generation_config.json are joined", async () => {
  const path = await writeFolder("ends", tinySource(TINY.llama));
  writeFileSync(join(path, "generation_config.json"), JSON.stringify({ eos_token_id: [2, 9, 11] }));
  expect(openModel(path).config.eos).toEqual([2, 9, 11]);
});

test.each([
  [{ model_type: "falcon" }, "Cannot use a model of type 'falcon': this build has llama, mistral, ministral, qwen2"],
  [{ ...TINY.llama, num_local_experts: 8 }, "num_local_experts, which is mixture of experts"],
  [{ ...TINY.llama, vision_config: {} }, "vision_config, which is a vision part"],
  [{ ...TINY.llama, quantization_config: { quant_method: "gptq" } }, "weights quantised in another library's format"],
  [{ ...TINY.qwen2, is_causal: false }, "is_causal false, and attention here is causal"], // gte-Qwen2
  [{ ...TINY.llama, per_layer_config: { 1: { head_dim: 4 } } }, "per_layer_config, which is layers that differ"],
  [{ ...TINY.llama, hidden_act: "relu" }, "Cannot use the activation 'relu': this build has silu"],
  [{ ...TINY.llama, num_key_value_heads: 3 }, "Cannot share 3 key heads among 4 query heads"],
  [{ ...TINY.llama, hidden_size: "big" }, 'hidden_size is "big" and must be a number'],
  [{ ...TINY.llama, rms_norm_eps: "x" }, 'rms_norm_eps is "x" and must be a number'],
  [{ ...TINY.gemma3, use_bidirectional_attention: true }, "attention here is causal"],
  [{ ...TINY.gemma2, layer_types: ["full_attention"] }, "1 layer_types for 3 layers"],
  [{ ...TINY.qwen2, use_sliding_window: true, layer_types: ["a", "b", "c"] }, "Cannot use a layer of type 'a'"],
])("a config with %j is refused", (hf, why) => {
  const path = mkdtempSync(join(dir, "refused-"));
  writeFileSync(join(path, "config.json"), JSON.stringify(hf));
  expect(() => openModel(path)).toThrow(why);
});

test.each([
  ["mistral", TINY.mistral, "layer 0's sliding window of 3 tokens"],
  ["gemma2", TINY.gemma2, "an attention scale of"],
  ["gemma3", TINY.gemma3, "an attention scale of"],
  ["smollm3", TINY.smollm3, "layer 1's place among the layers without rope"],
  ["qwen3", { ...TINY.qwen3, attention_bias: true }, "a bias on qkv"],
  [
    "qwen2",
    {
      ...TINY.qwen2,
      hidden_size: 24,
      rope_scaling: { type: "llama3", factor: 4, low_freq_factor: 1, high_freq_factor: 4 },
    },
    "rope type 'llama3'",
  ],
  ["llama", { ...TINY.llama, rope_scaling: { type: "yarn", factor: 4, beta_fast: 16 } }, "yarn's beta_fast 16"],
  ["llama", { ...TINY.llama, hidden_act: "gelu" }, "the activation gelu (the runtime has silu)"],
  ["gemma", { ...TINY.gemma, hidden_act: "silu" }, "the activation silu (the runtime has gelu_tanh)"],
  [
    "gemma3",
    {
      ...{ ...TINY.gemma3, query_pre_attn_scalar: 6, sliding_window_pattern: 6 },
      rope_parameters: { sliding_attention: { rope_type: "linear", factor: 2 } },
    },
    "rope type 'linear' in sliding layers",
  ],
  ["phi3", { ...TINY.phi3, hidden_size: 24, partial_rotary_factor: 0.5 }, "an odd number of rotated features (3)"],
])("what a GGUF of %s cannot express is refused by name", (_, hf, why) => {
  const s = tinySource(hf);
  expect(() => s.family.ggufMeta(s.config, s.hf)).toThrow(why);
});

test("a GGUF's trained length is the one that counts, beside the rope parameters before in them", () => {
  const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 8 };
  const s = tinySource({ ...TINY.llama, original_max_position_embeddings: 4, rope_parameters: yarn });
  expect(s.family.ggufMeta(s.config, s.hf).get("llama.rope.scaling.original_context_length")?.value).toBe(4);
});

/** What a llama GGUF with these keys says, as a transformers config. */
function fromGguf(keys: Record<string, unknown>): HfConfig {
  const sizes = { embedding_length: 12, block_count: 1, feed_forward_length: 8, context_length: 16 };
  const all = { ...sizes, "attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-5, ...keys };
  const file = {
    meta: new Map(Object.entries(all).map(([k, v]) => [`llama.${k}`, v])) as GgufReader["meta"],
    ...{ has: () => false, floats: () => null, shape: () => [37, 12] },
  };
  return familyOf(TINY.llama).fromGguf(file);
}

test.each([
  [{ "rope.dimension_count": 4 }, "4 of a head's 6 features are rotated"],
  [{ "attention.value_length": 8 }, "its llama.attention.value_length is 8, and this build has 6"],
  [{ "attention.causal": false }, "llama.attention.causal is false"],
  [{ expert_count: 8 }, "llama.expert_count is 8"],
  [{ "rope.scaling.yarn_attn_factor": 0.5 }, "llama.rope.scaling.yarn_attn_factor is 0.5"],
])("a GGUF with %j is refused by the key", (keys, why) => {
  expect(() => fromGguf(keys)).toThrow(why);
});

test.each([
  [{ "rope.scaling.factor": 4 }, { rope_type: "linear", factor: 4 }],
  [{ "rope.scale_linear": 2 }, { rope_type: "linear", factor: 2 }],
  [{ "rope.scaling.factor": 0 }, undefined],
  [{ "rope.scaling.type": "none", "rope.scaling.factor": 4 }, undefined],
  [
    { "rope.scaling.type": "yarn", "rope.scaling.factor": 4, "rope.scaling.yarn_beta_fast": 16 },
    { rope_type: "yarn", factor: 4, beta_fast: 16 },
  ],
])("a GGUF's %j is read as llama.cpp does (load_hparams)", (keys, scaling) => {
  expect(fromGguf(keys).rope_scaling).toEqual(scaling);
});

test("a config that names no padding token has its family's own (configuration_*.py); null is none", () => {
  const pads = Object.entries(TINY).map(([name, hf]) => [name, familyOf(hf).config(hf).pad]);
  const none = { llama: null, mistral: null, qwen2: null, qwen3: null };
  expect(Object.fromEntries(pads)).toEqual({ ...none, gemma: 0, gemma2: 0, gemma3: 0, phi3: 32000, smollm3: 128004 });
  expect(familyOf(TINY.gemma).config({ ...TINY.gemma, pad_token_id: null }).pad).toBe(null);
});

test("dropout that the model's config asks for in training is named, since it is not applied", async () => {
  const notes: string[] = [], note = (n: string) => notes.push(n);
  const load = async (hf: HfConfig, o: { lora?: LoraOptions; full?: boolean }) => {
    (await loadModel(tinySource(hf), { backend: new ReferenceBackend(), maxLength: 16, note, ...o })).close();
  };
  const phi3 = { ...TINY.phi3, attention_dropout: 0.1, resid_pdrop: 0.2, embd_pdrop: 0.3 }; // transformers reads no embd_pdrop
  await load(phi3, {});
  await load({ ...TINY.llama, attention_dropout: 0, resid_pdrop: 0.2 }, { full: true });
  expect(notes).toEqual([]);
  await load(phi3, { lora: tinyLora() });
  expect(notes.map((n) => n.slice(0, n.indexOf(":")))).toEqual([
    "The model's config asks for attention_dropout 0.1 in training",
    "The model's config asks for resid_pdrop 0.2 in training",
  ]);
});

test("a path without a model says what is missing", () => {
  expect(() => openModel(join(dir, "nowhere"))).toThrow("does not exist");
  const empty = mkdtempSync(join(dir, "empty-"));
  expect(() => openModel(empty)).toThrow("has no config.json and no .gguf file");
  for (const name of ["b.gguf", "a.gguf", "model.safetensors"]) writeFileSync(join(empty, name), "");
  expect(() => openModel(empty)).toThrow("several .gguf files: a.gguf, b.gguf; name one");
  expect(() => loadTokenizer(empty)).toThrow("has a.gguf, b.gguf; name one of them");
  expect(() => openModel(join(empty, "model.safetensors"))).toThrow("name the folder with its config.json");
  expect(() => loadTokenizer(join(empty, "model.safetensors"))).toThrow("name the folder with its tokenizer.json");
});
