/** Tokenizers of published models, written into GGUFs: llama.cpp cuts texts as Rust's tokenizers do. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tokenizerFields } from "../../src/export/gguf_tokenizer.ts";
import { tokenizerFiles } from "../../src/export/tokenizer_files.ts";
import type { GgufMeta } from "../../src/formats/gguf_write.ts";
import { writeGguf } from "../../src/formats/gguf_write.ts";
import { loadTokenizer, tokenizerFromJson } from "../../src/tokenizer/mod.ts";
import { inFolder, metaOf, shared } from "../formats/files.ts";
import { cannotUnpack, unpack } from "../golden/tokenizer_cases.ts";
import { askLlama, oracleMissing } from "./oracle.ts";

const golden = shared("golden-tokenizers");
const reason = golden ? cannotUnpack() ?? oracleMissing() : "needs ../shared/golden-tokenizers";

/** What llama.cpp wants to know before it looks at a vocabulary. */
const SKELETON = {
  "general.architecture": "llama",
  "llama.block_count": 1,
  "llama.context_length": 64,
  "llama.embedding_length": 64,
  "llama.feed_forward_length": 64,
  "llama.attention.head_count": 1,
};

/** Kind and pre-tokenizer that llama.cpp's own converter gives these models. */
const MODELS: Record<string, [string, string]> = {
  llama2: ["llama", "default"],
  llama3_1: ["gpt2", "llama-bpe"],
  qwen3: ["gpt2", "qwen2"],
  gemma3: ["llama", "default"],
};

describe.skipIf(reason)(`tokenizers of published models${reason ? ` (${reason})` : ""}`, () => {
  test("are cut by llama.cpp as by Rust's tokenizers, after export", async () => {
    const files = unpack(golden!);
    try {
      await inFolder(async (dir) => {
        const questions: { gguf: string; texts: string[] }[] = [], wanted: number[][][] = [];
        for (const [name, [kind, pre]] of Object.entries(MODELS)) {
          const folder = files.find(name)!, tokenizer = loadTokenizer(folder);
          const fields = tokenizerFields(folder, tokenizer, tokenizer.size + 8);
          expect([fields.get("tokenizer.ggml.model")!.value, fields.get("tokenizer.ggml.pre")!.value], name).toEqual([
            kind,
            pre,
          ]);
          const gguf = join(dir, `${name}.gguf`);
          const eps: GgufMeta = new Map([["llama.attention.layer_norm_rms_epsilon", {
            value: 1e-5,
            type: { type: "f32", array: false },
          }]]);
          await writeGguf(gguf, new Map([...metaOf(SKELETON), ...eps, ...fields]), []);
          const { encodings } = JSON.parse(readFileSync(join(golden!, `${name}.json`), "utf8"));
          // llama.cpp does not bring Qwen's texts into Unicode's composed form, and takes any vocabulary's "</s>" for an end.
          const cases = (encodings as { text: string; ids: number[] }[])
            .filter((e) => e.text === e.text.normalize("NFC") && !e.text.includes("</s>")).slice(0, 150);
          questions.push({ gguf, texts: cases.map((c) => c.text) });
          wanted.push(cases.map((c) => c.ids));
        }
        for (const [i, answer] of askLlama(dir, questions).entries()) {
          for (const [n, ids] of answer.tokens.entries()) {
            expect(ids, `${Object.keys(MODELS)[i]}: ${questions[i]!.texts[n]}`).toEqual(wanted[i]![n]);
          }
        }
      });
    } finally {
      files.close();
    }
  });

  test("come back from a GGUF as tokenizer.json with the same ids", () => {
    const files = unpack(golden!);
    try {
      for (const name of ["llama2", "qwen3"]) {
        const folder = files.find(name)!, tokenizer = loadTokenizer(folder);
        const fields = tokenizerFields(folder, tokenizer, tokenizer.size);
        const meta = new Map([...fields].map(([k, f]) => [k, f.value]));
        const written = tokenizerFiles(meta, tokenizer, name);
        const json = JSON.parse(written.get("tokenizer.json")!),
          config = JSON.parse(written.get("tokenizer_config.json")!);
        const back = tokenizerFromJson({ tokenizer: json, config }, name);
        const { encodings } = JSON.parse(readFileSync(join(golden!, `${name}.json`), "utf8"));
        for (const { text, ids } of encodings.slice(0, 150)) expect([...back.encode(text)], text).toEqual(ids);
      }
    } finally {
      files.close();
    }
  });
});
