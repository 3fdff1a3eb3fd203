/** Importance matrices: sums held against the definition, files in llama.cpp's form, and what they are good for. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { ConfigError, FormatError } from "../../src/core/errors.ts";
import { writeModelGguf } from "../../src/export/gguf.ts";
import { collectImportance, importanceOf, readImportance, writeImportance } from "../../src/export/importance.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { openGguf } from "../../src/formats/gguf_read.ts";
import { writeGguf } from "../../src/formats/gguf_write.ts";
import { openModel } from "../../src/models/mod.ts";
import { readRowRange } from "../../src/models/rows.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder, metaOf } from "../formats/files.ts";
import { EXPRESSIBLE, writeTinyFolder } from "./tiny_folder.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1 });
});
afterAll(() => backend.close());

const TEXT = "The handle, then the ring; the other hand. ".repeat(12);

test("collectImportance() sums the squares that a linear is given, over all chunks", async () => {
  await inFolder(async (dir) => {
    await writeTinyFolder(dir, EXPRESSIBLE.llama!);
    const source = openModel(dir), tokenizer = loadTokenizer(dir);
    const chunks: number[] = [];
    const m = await collectImportance({
      ...{ source, backend, tokenizer, texts: [TEXT, TEXT], dataset: "test", chunkTokens: 64, chunks: 3 },
      onProgress: (c) => chunks.push(c),
    });
    expect(chunks).toEqual([1, 2, 3]);
    expect(m.tokens).toBe(192);
    // The first block's q, k and v are given rmsnorm(embedding)·w: the definition, in f64.
    const weights = (ours: string) => {
      const t = source.tensors.find((t) => t.ours === ours)!;
      return readRowRange(t, source.config, 0, t.shape[0]!);
    };
    const embed = weights("embed"), norm = weights("layers.0.attn_norm"), d = 64;
    const ids = [TEXT, TEXT].flatMap((t) => [...tokenizer.encode(t)]).slice(0, 192);
    const wish = new Float64Array(d);
    ids.forEach((id, n) => {
      const row = embed.subarray((n % 64 ? id : 256) * d, (n % 64 ? id : 256) * d + d); // each chunk starts with BOS
      const rms = Math.sqrt(row.reduce((s, v) => s + v * v, 0) / d + 1e-5);
      for (let i = 0; i < d; i++) wish[i]! += (row[i]! / rms * norm[i]!) ** 2;
    });
    const got = m.sums.get("blk.0.attn_q.weight")!;
    for (let i = 0; i < d; i++) expect(got[i]! / wish[i]!).toBeCloseTo(1, 4);
    for (const name of ["attn_k", "attn_v"]) expect(m.sums.get(`blk.0.${name}.weight`)).toEqual(got);
    expect(m.sums.size).toBe(21);
    expect(m.sums.get("blk.2.ffn_down.weight")!.length).toBe(96);
    await expect(collectImportance({ source, backend, tokenizer, texts: ["short"], dataset: "x" })).rejects.toThrow(
      ConfigError,
    );
    source.close();
  });
});

test("fused linears are counted once", async () => {
  await inFolder(async (dir) => {
    await writeTinyFolder(dir, EXPRESSIBLE.phi3!);
    const source = openModel(dir), tokenizer = loadTokenizer(dir);
    const run = { source, backend, tokenizer, dataset: "test", chunkTokens: 32 };
    const one = await collectImportance({ ...run, texts: [TEXT], chunks: 1 });
    const again = await collectImportance({ ...run, texts: [TEXT.slice(0, TEXT.length / 2), TEXT], chunks: 1 });
    expect([...one.sums.keys()].filter((n) => n.startsWith("blk.0"))).toEqual(
      ["attn_qkv", "attn_output", "ffn_up", "ffn_down"].map((n) => `blk.0.${n}.weight`),
    );
    expect(again.sums).toEqual(one.sums);
    // The mean square of a normed input times w is near w² (norm weights are near 1).
    const mean = importanceOf(one).get("blk.0.attn_qkv.weight")!;
    const average = mean.reduce((a, b) => a + b, 0) / mean.length;
    expect(average).toBeGreaterThan(0.7);
    expect(average).toBeLessThan(1.4);
    source.close();
  });
});

test("files have llama.cpp's names and survive writing and reading", async () => {
  await inFolder(async (dir) => {
    const path = join(dir, "x.imatrix.gguf");
    const sums = new Map([["blk.0.attn_q.weight", Float32Array.of(8, 2, 0)]]);
    await writeImportance(path, { sums, tokens: 4, chunkTokens: 2, dataset: "a.txt" });
    const file = openGguf(path);
    expect([...file.tensors.values()].map((t) => [t.name, [...t.shape], t.dtype])).toEqual([
      ["blk.0.attn_q.weight.in_sum2", [1, 3], "f32"],
      ["blk.0.attn_q.weight.counts", [1, 1], "f32"],
    ]);
    expect(Object.fromEntries(file.meta)).toEqual({
      "general.type": "imatrix",
      "imatrix.datasets": ["a.txt"],
      "imatrix.chunk_count": 2,
      "imatrix.chunk_size": 2,
    });
    file.close();
    expect([...readImportance(path).get("blk.0.attn_q.weight")!]).toEqual([2, 0.5, 0]);
    await writeGguf(path, metaOf({ "general.type": "model" }), []);
    expect(() => readImportance(path)).toThrow(FormatError);
  });
});

test("a matrix of another model is refused", async () => {
  await inFolder(async (dir) => {
    await writeTinyFolder(dir, EXPRESSIBLE.llama!);
    const source = openModel(dir), tokenizer = loadTokenizer(dir), codec = await openBlockCodec(1);
    const write = (importance: Map<string, Float32Array<ArrayBuffer>>) =>
      writeModelGguf(join(dir, "x.gguf"), mergeModel(source, null), {
        quantization: "q4_0",
        tokenizer,
        codec,
        importance,
      });
    await expect(write(new Map([["blk.0.attn_q.weight", new Float32Array(5)]]))).rejects.toThrow("it has 5 weights");
    await expect(write(new Map([["blk.0.attn_q.weight", new Float32Array(64).fill(NaN)]]))).rejects.toThrow("finite");
    codec.close();
    source.close();
  });
});
