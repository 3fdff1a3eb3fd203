/**
 * SmolLM2-135M, fine-tuned by transformers and peft (golden-real), merged and exported by us, answered by llama.cpp:
 * the recorded log-probabilities and answers of the tuned model in PyTorch are the truth.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { mergeModel } from "../../src/export/merge.ts";
import { writeModelGguf } from "../../src/export/gguf.ts";
import { adapterParts, type FloatTensor } from "../../src/formats/adapter.ts";
import { readPeft } from "../../src/formats/peft.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { inFolder, shared } from "../formats/files.ts";
import { type Answer, askLlama, oracleMissing, type Question } from "./oracle.ts";

const golden = shared("golden-real"), file = shared("models/SmolLM2-135M-Instruct.Q4_1.gguf");
const reason = golden && file ? oracleMissing() : "needs ../shared/golden-real and ../shared/models";

/** Prompts of case.json that are asked, by their number: three tips, the capital of France, a translation. */
const ASKED = [0, 1, 3];
/**
 * llama.cpp multiplies q8_0 and q4_k_m with activations rounded to 8 bits, which moves a probability by some hundredths
 * whoever wrote the file (quantization_test.ts: ours are its own, to the byte); under f16 it stays near PyTorch's f32.
 */
const TYPES = ["f16", "q8_0", "q4_k_m"] as const;

describe.skipIf(reason)(`SmolLM2, tuned and exported${reason ? ` (${reason})` : ""}`, () => {
  test("answers in llama.cpp as the tuned model in PyTorch, and ends its answers", { timeout: 400_000 }, async () => {
    const recorded = openSafetensors(join(golden!, "golden.safetensors"));
    const values = (name: string) => readFloats(recorded.tensors.get(name)!);
    const tuned = new Map<string, FloatTensor>();
    for (const t of recorded.tensors.values()) {
      if (t.name.startsWith("final.")) tuned.set(t.name.slice(6), { shape: t.shape, values: readFloats(t) });
    }
    const { settings } = readPeft(join(golden!, "adapter"));
    const questions = Object.keys(JSON.parse(readFileSync(join(golden!, "case.json"), "utf8")).prompts);
    const source = openModel(file!), tokenizer = loadTokenizer(file!), codec = await openBlockCodec();
    const texts = ASKED.map((n) => tokenizer.chat([{ role: "user", content: questions[n]! }], { addPrompt: true }));
    const ids = ASKED.map((n) => [...values(`prompt${n}.ids`)]);
    await inFolder(async (dir) => {
      const model = mergeModel(source, { ...adapterParts({ settings, tensors: tuned }), full: false });
      const asked: Question[] = [];
      for (const quantization of TYPES) {
        const gguf = join(dir, `${quantization}.gguf`);
        await writeModelGguf(gguf, model, { quantization, tokenizer, codec });
        asked.push({ gguf, texts, ids, last: true, greedy: { ids: ids[1]!, max: 64 } });
      }
      const [f16, q8, q4] = askLlama(dir, asked) as [Answer, Answer, Answer];
      expect(f16.tokens).toEqual(ids);
      for (const [i, n] of ASKED.entries()) {
        const top = values(`prompt${n}.tuned.top_ids`), logprobs = values(`prompt${n}.tuned.top_logprobs`);
        for (const [k, id] of top.entries()) {
          const p = Math.exp(logprobs[k]!);
          expect(Math.abs(f16.probabilities[i]![id]! - p), `f16, prompt ${n}, token ${id}`).toBeLessThan(5e-3);
          expect(Math.abs(q8.probabilities[i]![id]! - p), `q8_0, prompt ${n}, token ${id}`).toBeLessThan(4e-2);
        }
      }
      const wish = values("prompt1.tuned.greedy"), margin = values("prompt1.tuned.margin");
      const sure = margin.findIndex((m) => m < 0.2), end = [...wish].indexOf(tokenizer.eos[0]!) + 1;
      const length = Math.min(...[sure, end].map((n) => n > 0 ? n : 64));
      expect(f16.answer!.slice(0, length)).toEqual([...wish.slice(0, length)]);
      for (const { answer, stopped } of [f16, q8, q4]) {
        expect(tokenizer.decode(answer!)).toContain("Paris");
        expect(stopped).toBe(true);
      }
    });
    codec.close();
    source.close();
    recorded.close();
  });
});
