/**
 * What we write as GGUF, read by llama.cpp: every family's distributions, tokenization, adapters. Our side is the
 * Hugging Face folder on our own decoder, which tests/golden holds against transformers.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { BlockCodec } from "../../src/core/block_codec.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { writeModelGguf } from "../../src/export/gguf.ts";
import { writeLoraGguf } from "../../src/export/lora_gguf.ts";
import { Prober } from "../../src/export/probe.ts";
import type { Quantization } from "../../src/export/quantization.ts";
import { adapterParts } from "../../src/formats/adapter.ts";
import { loadModel, openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder } from "../formats/files.ts";
import { askLlama, oracleMissing, type Question } from "./oracle.ts";
import { EXPRESSIBLE, tinyAdapter, writeTinyFolder } from "./tiny_folder.ts";

const missing = oracleMissing();
let backend: Backend;
let codec: BlockCodec;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1 });
  codec = await openBlockCodec(1);
});
afterAll(() => {
  backend.close();
  codec.close();
});

/** softmax of each row, in f64. */
function softmax(logits: Float32Array, vocab: number): Float64Array {
  const out = new Float64Array(logits.length);
  for (let at = 0; at < logits.length; at += vocab) {
    const row = logits.subarray(at, at + vocab);
    const top = Math.max(...row);
    let sum = 0;
    for (const v of row) sum += Math.exp(v - top);
    for (let i = 0; i < vocab; i++) out[at + i] = Math.exp(row[i]! - top) / sum;
  }
  return out;
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
};

const TEXTS = ["The handle, then the ring.\n", "naïve 42 <|turn|>user 'tis\t\n\n x", "日本 🦙"];
/** 40 tokens: longer than the sliding windows of 8. */
const IDS = Array.from({ length: 40 }, (_, i) => (17 * i * i + 5 * i + 3) % 271);

describe.skipIf(missing)(`llama.cpp reads what we write${missing ? ` (${missing})` : ""}`, () => {
  test("and gives the same next-token distributions and tokens, for every family, in f16 and q8_0", async () => {
    await inFolder(async (dir) => {
      const names = Object.keys(EXPRESSIBLE);
      const ours: Float64Array[] = [];
      const tokens: number[][][] = [];
      const files: string[] = [];
      for (const name of names) {
        const folder = join(dir, name);
        mkdirSync(folder);
        await writeTinyFolder(folder, EXPRESSIBLE[name]!);
        const source = openModel(folder), tokenizer = loadTokenizer(folder);
        for (const q of ["f16", "q8_0"] as Quantization[]) {
          const path = join(dir, `${name}.${q}.gguf`);
          await writeModelGguf(path, mergeModel(source, null), { quantization: q, tokenizer, codec });
          files.push(path);
        }
        const model = await loadModel(source, { backend, maxLength: IDS.length });
        const prober = new Prober(model, IDS.length);
        ours.push(softmax(await prober.logits(IDS), model.config.vocab));
        tokens.push(TEXTS.map((t) => [...tokenizer.encode(t)]));
        prober.close();
        model.close();
        source.close();
      }
      const answers = askLlama(dir, files.map((gguf) => ({ gguf, texts: TEXTS, ids: [IDS] })));
      for (const [i, name] of names.entries()) {
        const [f16, q8] = [answers[2 * i]!, answers[2 * i + 1]!];
        expect(f16.tokens, name).toEqual(tokens[i]);
        expect(f16.ends, name).toMatchObject({ bos: 256, eos: 257, addBos: true });
        // The weights are halves, so what is left is llama.cpp's own rounding: activations and cache in f16.
        expect(largestDifference(f16.probabilities[0]!, ours[i]!), `${name} in f16`).toBeLessThan(1e-3);
        expect(largestDifference(q8.probabilities[0]!, ours[i]!), `${name} in q8_0`).toBeLessThan(2e-2);
      }
    });
  });

  test("and applies our adapter files as we merge them", async () => {
    await inFolder(async (dir) => {
      const questions: Question[] = [];
      for (const name of ["llama", "qwen2", "phi3"]) {
        const folder = join(dir, name);
        mkdirSync(folder);
        await writeTinyFolder(folder, EXPRESSIBLE[name]!);
        const source = openModel(folder), tokenizer = loadTokenizer(folder);
        const adapter = tinyAdapter(source, { rslora: name === "qwen2", rankPattern: { o_proj: 5 } });
        const changes = { ...adapterParts(adapter), full: false };
        const [base, lora, merged] = ["base", "lora", "merged"].map((n) => join(dir, `${name}-${n}.gguf`));
        await writeModelGguf(base!, mergeModel(source, null), { quantization: "f32", tokenizer, codec });
        await writeModelGguf(merged!, mergeModel(source, changes), { quantization: "f32", tokenizer, codec });
        await writeLoraGguf(lora!, adapter, source);
        source.close();
        const ids = [IDS.slice(0, 16)];
        questions.push({ gguf: base!, ids }, { gguf: base!, lora: lora!, ids }, { gguf: merged!, ids });
      }
      const answers = askLlama(dir, questions).map((a) => a.probabilities[0]!);
      for (let i = 0; i < answers.length; i += 3) {
        const [base, adapted, merged] = [answers[i]!, answers[i + 1]!, answers[i + 2]!];
        expect(largestDifference(adapted, merged)).toBeLessThan(1e-3);
        expect(largestDifference(base, merged)).toBeGreaterThan(0.02);
      }
    });
  });
});
