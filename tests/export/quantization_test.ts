/** Types and bytes of quantised files, against llama.cpp's own quantiser and against its published rules. */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../src/core/errors.ts";
import { type Importance, writeModelGguf } from "../../src/export/gguf.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { chooseTypes, fileTypeOf, fitRows, parseQuantization, QUANTIZATIONS } from "../../src/export/quantization.ts";
import { openGguf } from "../../src/formats/gguf_read.ts";
import { readBytes } from "../../src/formats/stored.ts";
import { type ModelSource, openModel } from "../../src/models/mod.ts";
import { familyOf } from "../../src/models/registry.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { inFolder, random } from "../formats/files.ts";
import { oracleMissing } from "./oracle.ts";
import { EXPRESSIBLE, writeTinyFolder } from "./tiny_folder.ts";

const missing = oracleMissing();

interface ThereJob {
  input: string;
  output: string;
  fileType: number;
  importance?: Record<string, number[]>;
}

/** Seconds llama.cpp's quantiser took for each job, one thread. */
function quantizeThere(dir: string, jobs: ThereJob[]): number[] {
  const path = join(dir, "jobs.json");
  writeFileSync(path, JSON.stringify(jobs.map((j) => ({ ...j, threads: 1 }))));
  const script = fileURLToPath(new URL("../oracles/quantize.ts", import.meta.url));
  return JSON.parse(execFileSync("deno", ["run", "-A", "--no-config", script, path], { encoding: "utf8" }));
}

/** Rows of 256 (K-quants), rows of 96 (their fallbacks), nine layers (both kinds of "more bits"), four heads a key head. */
const SHAPE = {
  ...EXPRESSIBLE.llama,
  hidden_size: 256,
  intermediate_size: 96,
  num_hidden_layers: 9,
  num_attention_heads: 8,
  head_dim: 32,
};

describe.skipIf(missing)(`our files are llama.cpp's own${missing ? ` (${missing})` : ""}`, () => {
  test.each([["untied", false], ["tied, with an importance matrix", true]])(
    "to the byte, from the same f16 file, in every type: %s",
    { timeout: 300_000 },
    async (name, weighed) => {
      await inFolder(async (dir) => {
        const codec = await openBlockCodec(1), input = join(dir, "input.gguf");
        await writeTinyFolder(dir, { ...SHAPE, tie_word_embeddings: name.startsWith("tied") });
        const original = openModel(dir), tokenizer = loadTokenizer(dir);
        await writeModelGguf(input, mergeModel(original, null), { quantization: "f16", tokenizer, codec });
        original.close();
        const source = openModel(input);
        const importance = weighed ? randomImportance(source) : undefined;
        const given = importance && Object.fromEntries([...importance].map(([n, x]) => [n, [...x]]));
        const types = QUANTIZATIONS.filter((q) => q !== "f32");
        const output = (q: string) => join(dir, `theirs-${q}.gguf`);
        quantizeThere(
          dir,
          types.map((q) => ({ input, output: output(q), fileType: fileTypeOf(q), importance: given })),
        );
        for (const quantization of types) {
          const path = join(dir, "ours.gguf");
          await writeModelGguf(path, mergeModel(source, null), { quantization, tokenizer, codec, importance });
          expectSame(path, output(quantization), quantization);
        }
        source.close();
        codec.close();
      });
    },
  );
});

/** Weights between 0 and 4 for every linear of the blocks; the embedding has none, as in llama.cpp's own files. */
function randomImportance(source: ModelSource): Importance {
  const next = random(5);
  const linears = source.tensors.filter((t) => t.shape.length === 2 && t.ours.startsWith("layers."));
  return new Map(linears.map((t) => [t.gguf, Float32Array.from({ length: t.shape[1]! }, () => 4 * next() ** 2)]));
}

function expectSame(path: string, wish: string, quantization: string): void {
  const [ours, theirs] = [openGguf(path), openGguf(wish)];
  expect(ours.meta).toEqual(theirs.meta);
  expect(ours.tensors.size).toBe(theirs.tensors.size);
  for (const t of theirs.tensors.values()) {
    const own = ours.tensors.get(t.name)!;
    expect(own.dtype, `${t.name} in ${quantization}`).toBe(t.dtype);
    expect(Buffer.compare(readBytes(own), readBytes(t)), `${t.name} in ${quantization}`).toBe(0);
  }
  ours.close();
  theirs.close();
}

describe("chooseTypes()", () => {
  const hf = { ...EXPRESSIBLE.llama, num_hidden_layers: 32, hidden_size: 256, num_attention_heads: 8, head_dim: 32 };
  const config = familyOf(hf).config(hf);
  const planned = Array.from({ length: 32 }, (_, n) => [
    { gguf: `blk.${n}.attn_v.weight`, shape: [64, 256] },
    { gguf: `blk.${n}.ffn_down.weight`, shape: [256, 512] },
    { gguf: `blk.${n}.attn_norm.weight`, shape: [256] },
  ]).flat();

  test("gives q4_k_m's values and downs of 32 layers six bits where llama.cpp's files of Llama 3 8B have them", () => {
    const types = chooseTypes("q4_k_m", [...planned].reverse(), config, false);
    const six = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
    for (let n = 0; n < 32; n++) {
      expect(types.get(`blk.${n}.attn_v.weight`), `${n}`).toBe(six.includes(n) ? "q6_k" : "q4_k");
      expect(types.get(`blk.${n}.ffn_down.weight`), `${n}`).toBe(six.includes(n) ? "q6_k" : "q4_k");
      expect(types.get(`blk.${n}.attn_norm.weight`)).toBe("f32");
    }
  });

  test("changes q4_0 and iq4_xs in the first layers when an importance matrix is there", () => {
    const down = (q: "q4_0" | "iq4_xs", importance: boolean) =>
      chooseTypes(q, planned, config, importance).get("blk.0.ffn_down.weight");
    expect([down("q4_0", false), down("q4_0", true)]).toEqual(["q4_0", "q4_1"]);
    expect([down("iq4_xs", false), down("iq4_xs", true)]).toEqual(["q5_k", "iq4_xs"]);
  });

  test("falls back to blocks of 32, then to f16, where rows do not fit", () => {
    expect(["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs", "q8_0"].map((t) => fitRows(t as "q2_k", 96))).toEqual(
      ["q4_0", "q4_0", "q5_0", "q5_1", "q8_0", "iq4_nl", "q8_0"],
    );
    expect([fitRows("q4_k", 80), fitRows("q8_0", 80), fitRows("q4_k", 512)]).toEqual(["f16", "f16", "q4_k"]);
  });
});

test("parseQuantization() takes Unsloth's names and refuses others with the list", () => {
  expect(["Q4_K_M", "quantized", "fast_quantized", "not_quantized", "q5_k"].map(parseQuantization)).toEqual(
    ["q4_k_m", "q4_k_m", "q8_0", "f16", "q5_k_m"],
  );
  expect(() => parseQuantization("iq2_xxs")).toThrow(ConfigError);
  expect(() => parseQuantization("toString")).toThrow("this build has f32, f16");
});
