/** The whole way: a trained tiny model in every form, each loaded again and compared; and what is off is refused. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { BlockCodec } from "../../src/core/block_codec.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { ggufMetaOf } from "../../src/export/gguf_meta.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { exportModel, type ExportOptions, type Trained } from "../../src/export/mod.ts";
import { klDivergence } from "../../src/export/verify.ts";
import { openGguf } from "../../src/formats/gguf_read.ts";
import { writeGguf } from "../../src/formats/gguf_write.ts";
import { readMlx } from "../../src/formats/mlx.ts";
import { readPeft } from "../../src/formats/peft.ts";
import { openSafetensorsFolder } from "../../src/formats/safetensors.ts";
import { readBytes, readFloats } from "../../src/formats/stored.ts";
import { openModel } from "../../src/models/mod.ts";
import { readRowRange } from "../../src/models/rows.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder, metaOf } from "../formats/files.ts";
import { EXPRESSIBLE, TEMPLATE, tinyAdapter, writeTinyFolder } from "./tiny_folder.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1 });
});
afterAll(() => backend.close());

const openCodec = () => openBlockCodec(1);

/** Makes a tiny model in a folder of its own and hands it over with a folder for the exports. */
function withTiny(
  name: string,
  work: (o: Omit<ExportOptions, "formats" | "quantization" | "trained">, dir: string) => Promise<void>,
): Promise<void> {
  return inFolder(async (dir) => {
    const folder = join(dir, "tiny-model");
    mkdirSync(folder);
    await writeTinyFolder(folder, EXPRESSIBLE[name]!);
    const source = openModel(folder), tokenizer = loadTokenizer(folder);
    try {
      await work({ source, tokenizer, outDir: join(dir, "out"), openCodec, verify: { backend } }, dir);
    } finally {
      source.close();
    }
  });
}

describe("exportModel()", () => {
  test("writes a DoRA-tuned model in every form, and each answers as the trained one", async () => {
    await withTiny("llama", async (o) => {
      const trained: Trained = { kind: "adapter", adapter: tinyAdapter(o.source, { dora: true }) };
      const log: string[] = [];
      const files = await exportModel({
        ...o,
        trained,
        formats: ["gguf", "merged_16bit", "lora", "mlx"],
        quantization: ["f32", "f16", "Q8_0"],
        log: (s) => log.push(s),
      });
      expect(files.map((f) => f.path.slice(o.outDir.length + 1))).toEqual(
        ["tiny-model.F32.gguf", "tiny-model.F16.gguf", "tiny-model.Q8_0.gguf", "merged_16bit", "lora", "mlx"],
      );
      const kl = files.map((f) => f.verification?.meanKl ?? null);
      expect(kl[0]).toBeLessThan(1e-9);
      expect(kl[1]).toBeLessThan(1e-5);
      expect(kl[2]).toBeLessThan(1e-2);
      expect(kl[3]).toBeLessThan(1e-5);
      expect(files[0]!.verification!.topAgreement).toBe(1);
      expect(log.filter((s) => s.startsWith("Compared with")).length).toBe(4);
      expect(log[0]).toContain("Merging 21 of 30 tensors");
      expect(readPeft(files[4]!.path).tensors.size).toBe(63);
      expect(readMlx(files[5]!.path).settings.dora).toBe(true);
      expect(readdirSync(o.outDir).filter((n) => n.endsWith(".tmp") || n.endsWith(".refused"))).toEqual([]);
    });
  });

  test("refuses a file that answers otherwise, and keeps it under another name", async () => {
    await withTiny("llama", async (o) => {
      const good = await openBlockCodec(1);
      // A codec that shifts every row by one block: the right size, the wrong values.
      const broken: BlockCodec = {
        threads: 1,
        encode: (d, cols, x, w) => {
          x.copyWithin(32, 0, x.length - 32);
          return good.encode(d, cols, x, w);
        },
        close: () => good.close(),
      };
      const run = exportModel({
        ...{ ...o, trained: { kind: "none" }, formats: ["gguf"], quantization: ["q8_0"] },
        openCodec: async () => broken,
      });
      await expect(run).rejects.toThrow("exceeds q8_0's bound");
      expect(readdirSync(o.outDir)).toEqual(["tiny-model.Q8_0.gguf.refused"]);
    });
  });

  test("makes a folder from a GGUF that gives the same weights, tokens and turns", async () => {
    await withTiny("gemma2", async (o, dir) => {
      const none: Trained = { kind: "none" };
      const [gguf] = await exportModel({ ...o, trained: none, formats: ["gguf"], quantization: ["f16"] });
      const source = openModel(gguf!.path), tokenizer = loadTokenizer(gguf!.path);
      const outDir = join(dir, "back");
      await exportModel({
        ...o,
        source,
        tokenizer,
        outDir,
        trained: none,
        formats: ["merged_16bit"],
        quantization: [],
      });
      const back = openModel(outDir), words = loadTokenizer(outDir);
      for (const t of o.source.tensors) {
        const again = back.tensors.find((b) => b.hf === t.hf)!;
        expect(again.stored.dtype).toBe("f16");
        const [x, y] = [
          readRowRange(t, o.source.config, 0, t.shape[0]!),
          readRowRange(again, back.config, 0, t.shape[0]!),
        ];
        // The weights are halves; gemma's norms went through w + 1 and back.
        const worst = x.reduce((m, v, i) => Math.max(m, Math.abs(v - y[i]!)), 0);
        expect(worst, t.hf).toBeLessThan(t.ours.includes("norm") ? 1e-3 : 1e-9);
      }
      expect([...words.encode("the handle <|turn|>")]).toEqual([...o.tokenizer!.encode("the handle <|turn|>")]);
      expect(words.template).toBe(TEMPLATE);
      expect([words.bos, words.addBos, ...words.eos]).toEqual([256, true, 257]);
      source.close();
      back.close();
    });
  });

  test("writes linears in bitsandbytes' NF4, the nearest values of each block, from folders and GGUFs", async () => {
    await withTiny("llama", async (o, dir) => {
      const none: Trained = { kind: "none" };
      const [gguf] = await exportModel({ ...o, trained: none, formats: ["gguf"], quantization: ["f32"] });
      for (const source of [o.source, openModel(gguf!.path)]) {
        const outDir = join(dir, `nf4-${source.kind}`), log: string[] = [];
        const run = { ...o, source, tokenizer: loadTokenizer(source.path), outDir, trained: none, quantization: [] };
        await exportModel({ ...run, formats: ["merged_4bit"], log: (s) => log.push(s) });
        expect(log.at(-1)).toMatch(/^Compared with the merged weights: relative error (8|9|10)\.\d %$/);
        const config = JSON.parse(readFileSync(join(outDir, "config.json"), "utf8"));
        expect(config.quantization_config).toMatchObject({ quant_method: "bitsandbytes", bnb_4bit_quant_type: "nf4" });
        const file = openSafetensorsFolder(outDir), name = "model.layers.1.mlp.down_proj.weight";
        expect(file.tensors.get("lm_head.weight")!.dtype).toBe("bf16");
        expect(file.tensors.get(name)).toMatchObject({ dtype: "u8", shape: [64 * 96 / 2, 1] });
        expect(file.tensors.get(`${name}.absmax`)!.shape).toEqual([64 * 96 / 64]);
        const state = new TextDecoder().decode(readBytes(file.tensors.get(`${name}.quant_state.bitsandbytes__nf4`)!));
        expect(JSON.parse(state)).toEqual({ quant_type: "nf4", blocksize: 64, dtype: "bfloat16", shape: [64, 96] });
        const packed = readBytes(file.tensors.get(name)!), absmax = readFloats(file.tensors.get(`${name}.absmax`)!);
        const map = readFloats(file.tensors.get(`${name}.quant_map`)!);
        const t = o.source.tensors.find((t) => t.hf === name)!, x = readRowRange(t, o.source.config, 0, 64);
        for (let i = 0; i < 1000; i++) {
          const scaled = x[i]! / absmax[i >> 6]!, q = i % 2 ? packed[i >> 1]! & 15 : packed[i >> 1]! >> 4;
          const best = Math.min(...Array.from(map, (v) => Math.abs(v - scaled)));
          expect(Math.abs(map[q]! - scaled)).toBeLessThan(best + 1e-6);
        }
        file.close();
        if (source !== o.source) source.close();
      }
    });
  });

  test("does not write over the model it reads", async () => {
    await withTiny("qwen2", async (o, dir) => {
      const trained: Trained = { kind: "none" };
      const [file] = await exportModel({ ...o, trained, formats: ["gguf"], quantization: ["f16"] });
      const source = openModel(file!.path);
      const again = { ...o, source, trained, quantization: ["f16"], formats: ["gguf"] as const };
      await expect(exportModel(again)).rejects.toThrow("it is the model being exported");
      const folder = {
        ...o,
        trained,
        outDir: join(dir, "tiny-model"),
        quantization: [],
        formats: ["merged_16bit"] as const,
      };
      await expect(exportModel(folder)).rejects.toThrow("it is the model being exported");
      source.close();
    });
  });

  test("writes K-quants only with a codec, and adapters only where there is one", async () => {
    await withTiny("llama", async (o) => {
      const { openCodec: _, ...without } = o;
      const base = { ...without, verify: null, trained: { kind: "none" } as Trained };
      await expect(exportModel({ ...base, formats: ["gguf"], quantization: ["iq4_nl"] })).rejects.toThrow(
        "needs the codec",
      );
      await expect(exportModel({ ...base, formats: ["lora"], quantization: [] })).rejects.toThrow(
        "there is no adapter",
      );
      const plain = await exportModel({ ...base, formats: ["gguf"], quantization: ["q4_0"] });
      expect(plain[0]!.verification).toBe(null);
    });
  });
});

describe("every family loads from the GGUF we write with the weights of the folder", () => {
  test.each(Object.keys(EXPRESSIBLE))("%s", async (name) => {
    await withTiny(name, async (o) => {
      const trained: Trained = { kind: "none" };
      const [file] = await exportModel({ ...o, trained, formats: ["gguf"], quantization: ["f32"] });
      const back = openModel(file!.path);
      expect(back.tensors.map((t) => t.ours)).toEqual(o.source.tensors.map((t) => t.ours));
      for (const [i, t] of o.source.tensors.entries()) {
        const x = readRowRange(t, o.source.config, 0, t.shape[0]!);
        const y = readRowRange(back.tensors[i]!, back.config, 0, t.shape[0]!);
        const worst = x.reduce((m, v, k) => Math.max(m, Math.abs(v - y[k]!)), 0);
        expect(worst, t.hf).toBeLessThanOrEqual(t.ggufAs === "plusOne" ? 1e-6 : 0);
      }
      expect(file!.verification!.maxKl).toBeLessThan(1e-6);
      back.close();
    });
  });
});

describe("what a GGUF cannot express is refused by name", () => {
  const base = EXPRESSIBLE;
  const cases: [string, Record<string, unknown>, string][] = [
    ["a sliding window in llama's arch", { ...base.mistral, sliding_window: 8 }, "sliding window of 8"],
    ["another pattern of layers without rope", { ...base.smollm3, no_rope_layers: [1, 0, 1, 1, 1] }, "without rope"],
    ["gemma 2's attention scaled otherwise", { ...base.gemma2, query_pre_attn_scalar: 64 }, "attention scale"],
    ["gemma 3's windows in another pattern", { ...base.gemma3, sliding_window_pattern: 3 }, "window"],
    ["a gemma head apart from the embedding", { ...base.gemma, tie_word_embeddings: false }, "a head apart"],
    ["a bias qwen 3 has no tensor for", { ...base.qwen3, attention_bias: true }, "a bias on qkv"],
    ["qwen 2 heads wider than the model", { ...base.qwen2, head_dim: 32 }, "a width of 64"],
    [
      "yarn with a factor of its own",
      { ...base.llama, rope_scaling: { rope_type: "yarn", factor: 4, attention_factor: 2 } },
      "attention_factor",
    ],
  ];
  test.each(cases)("%s", async (_name, hf, part) => {
    await inFolder(async (dir) => {
      await writeTinyFolder(dir, hf);
      const source = openModel(dir), tokenizer = loadTokenizer(dir);
      const meta = () => ggufMetaOf(mergeModel(source, null), tokenizer, "f16", {});
      expect(meta).toThrow(ConfigError);
      expect(meta).toThrow(part);
      source.close();
    });
  });
});

describe("metadata", () => {
  test("has what llama.cpp and Ollama need, from config, generation_config and tokenizer", async () => {
    await withTiny("llama", async (o, dir) => {
      const json = { do_sample: true, temperature: 0.6, top_p: 0.9, top_k: 20, eos_token_id: [257, 258] };
      writeFileSync(join(dir, "tiny-model/generation_config.json"), JSON.stringify(json));
      const tokenizer = loadTokenizer(o.source.path);
      const adapter = tinyAdapter(o.source, { baseModel: "someone/tiny" });
      const files = await exportModel({
        ...{ ...o, tokenizer, trained: { kind: "adapter", adapter }, formats: ["gguf"], quantization: ["q4_k_m"] },
        ...{ name: "my phi3 tale", verify: null },
      });
      const { meta, types, close } = openGguf(files[0]!.path);
      const expected = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "my phi 3 tale", // llama.cpp would strip spaces after turn markers for a "phi3"
        "general.size_label": "166K", // 2 · 288·64 + 3 · (2 · 128·64 + 2 · 64·64 + 3 · 96·64 + 2 · 64) + 64 = 166,336
        "general.file_type": 15,
        "general.quantization_version": 2,
        "general.base_model.0.name": "someone/tiny",
        "general.sampling.top_k": 20,
        "llama.context_length": 256,
        "llama.attention.head_count_kv": 2,
        "llama.vocab_size": 288,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.eot_token_id": 258, // its text is none of those llama.cpp knows
        "tokenizer.ggml.add_bos_token": true,
        "tokenizer.chat_template": TEMPLATE,
      };
      for (const [key, value] of Object.entries(expected)) expect(meta.get(key), key).toBe(value);
      expect(meta.get("general.sampling.temp")).toBe(Math.fround(0.6));
      expect(types.get("general.sampling.top_k")).toEqual({ type: "i32", array: false });
      const tokens = meta.get("tokenizer.ggml.tokens") as string[],
        kinds = meta.get("tokenizer.ggml.token_type") as Int32Array;
      expect([tokens.length, kinds.length]).toEqual([288, 288]);
      expect([tokens[32], tokens[256], tokens[269], kinds[32], kinds[258], kinds[269]]).toEqual(
        ["Ġ", "<s>", "[PAD269]", 1, 3, 5],
      );
      expect((meta.get("tokenizer.ggml.merges") as string[]).slice(0, 2)).toEqual(["Ġ t", "h e"]);
      close();
    });
  });
});

test("a part of a split GGUF is refused with the way out", async () => {
  await inFolder(async (dir) => {
    const path = join(dir, "x-00001-of-00003.gguf");
    await writeGguf(path, metaOf({ "general.architecture": "llama", "split.count": 3 }), []);
    expect(() => openModel(path)).toThrow("one of 3 parts; join them");
  });
});

test("klDivergence() is zero for equal rows and follows the formula for others", () => {
  const p = Float32Array.of(1, 2, 3), q = Float32Array.of(3, 1, 0.5);
  const soft = (x: Float32Array) => {
    const e = Array.from(x, Math.exp), sum = e.reduce((a, b) => a + b);
    return e.map((v) => v / sum);
  };
  const [a, b] = [soft(p), soft(q)];
  const wish = a.reduce((s, v, i) => s + v * Math.log(v / b[i]!), 0);
  expect(klDivergence(p, q)).toBeCloseTo(wish, 6);
  expect(klDivergence(p, p.map((v) => v + 5))).toBeCloseTo(0, 9);
});
