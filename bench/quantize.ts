/**
 * How fast is a GGUF quantised, beside llama.cpp's own quantiser on the same f16 file and the same threads? The ceiling
 * is llama.cpp per thread; the files are compared byte for byte, so their perplexity is the same by construction.
 *
 *   deno run -A bench/quantize.ts --model ../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf [--threads 2]
 *     [--type q4_k_m] [--width 1024]
 *
 * The second model is a random llama of --width whose rows hold whole K-quant blocks (SmolLM2's 576 do not). llama.cpp
 * comes from tests/oracles (npm ci --prefix tests/oracles --omit=optional --ignore-scripts).
 * @module
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Random } from "../src/core/philox.ts";
import { writeModelGguf } from "../src/export/gguf.ts";
import { mergeModel } from "../src/export/merge.ts";
import { fileTypeOf, parseQuantization, type Quantization } from "../src/export/quantization.ts";
import { openGguf } from "../src/formats/gguf_read.ts";
import { writeGguf } from "../src/formats/gguf_write.ts";
import { readBytes } from "../src/formats/stored.ts";
import { familyOf } from "../src/models/registry.ts";
import { expandNames } from "../src/models/names.ts";
import { openModel } from "../src/models/mod.ts";
import { loadTokenizer } from "../src/tokenizer/mod.ts";
import { openBlockCodec } from "../wasm/blocks.ts";

/** SmolLM2 as f16, what both quantisers start from. */
async function convert(model: string, path: string): Promise<void> {
  const source = openModel(model);
  await writeModelGguf(path, mergeModel(source, null), {
    quantization: "f16",
    tokenizer: loadTokenizer(model),
    codec: null,
  });
  source.close();
}

/** A random llama under SmolLM2's tokenizer: 8 layers, normal weights with a few outliers. */
async function synthesise(model: string, path: string, width: number): Promise<void> {
  const original = openGguf(model), random = new Random(1);
  const hf = {
    model_type: "llama",
    vocab_size: 49152,
    hidden_size: width,
    intermediate_size: 3 * width - width % 256,
    num_hidden_layers: 8,
    num_attention_heads: width / 64,
    num_key_value_heads: width / 128,
    head_dim: 64,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  };
  const family = familyOf(hf), config = family.config(hf);
  // One megabyte of halves near 0.02 · normal, repeated: what they are matters to neither quantiser's time.
  const noise = new Uint16Array(1 << 19).map(() => {
    const sign = random.uniform() < 0.5 ? 0x8000 : 0,
      size = Math.abs(0.02 * random.normal()) * (random.uniform() < 1e-3 ? 20 : 1);
    return sign | Math.round(Math.max(0, (Math.log2(size + 1e-7) + 15) * 1024));
  });
  const chunk = new Uint8Array(noise.buffer);
  const tensors = expandNames(family.tensors, config).map((t) => {
    const bytes = 2 * t.shape.reduce((a, b) => a * b, 1), flat = t.shape.length === 1;
    function* chunks() {
      if (flat) yield new Uint8Array(new Float32Array(t.shape[0]!).fill(1).buffer);
      else for (let at = 0; at < bytes; at += chunk.length) yield chunk.subarray(0, Math.min(chunk.length, bytes - at));
    }
    return { name: t.gguf, dtype: flat ? "f32" as const : "f16" as const, shape: t.shape, chunks };
  });
  const own = [...original.meta].filter(([k]) => k.startsWith("tokenizer.")).map(([k, value]) =>
    [k, { value, type: original.types.get(k)! }] as const
  );
  const general = ["general.architecture", "general.type"].map((k) =>
    [k, { value: original.meta.get(k)!, type: original.types.get(k)! }] as const
  );
  await writeGguf(path, new Map([...general, ...family.ggufMeta(config, hf), ...own]), tensors);
  original.close();
}

/** Seconds of llama.cpp's quantiser. */
function quantizeThere(dir: string, input: string, output: string, q: Quantization, threads: number): number {
  const jobs = join(dir, "jobs.json");
  writeFileSync(jobs, JSON.stringify([{ input, output, fileType: fileTypeOf(q), threads }]));
  const script = fileURLToPath(new URL("../tests/oracles/quantize.ts", import.meta.url));
  return JSON.parse(execFileSync("deno", ["run", "-A", "--no-config", script, jobs], { encoding: "utf8" }))[0];
}

/** Seconds of ours: reading, merging nothing, encoding, writing. */
async function quantizeHere(input: string, output: string, q: Quantization, threads: number): Promise<number> {
  const source = openModel(input), tokenizer = loadTokenizer(input), codec = await openBlockCodec(threads);
  const start = performance.now();
  await writeModelGguf(output, mergeModel(source, null), { quantization: q, tokenizer, codec });
  const seconds = (performance.now() - start) / 1000;
  codec.close();
  source.close();
  return seconds;
}

/** Bytes of tensors that differ. */
function differences(a: string, b: string): number {
  const [x, y] = [openGguf(a), openGguf(b)];
  let n = 0;
  for (const t of x.tensors.values()) {
    const [p, q] = [readBytes(t), readBytes(y.tensors.get(t.name)!)];
    for (let i = 0; i < Math.max(p.length, q.length); i++) if (p[i] !== q[i]) n++;
  }
  x.close();
  y.close();
  return n;
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: process.argv.slice(2),
    options: {
      model: { type: "string" },
      threads: { type: "string", default: "2" },
      type: { type: "string", default: "q4_k_m" },
      width: { type: "string", default: "1024" },
    },
  });
  if (!values.model) throw new Error("Cannot run: --model names no GGUF");
  const dir = mkdtempSync(join(tmpdir(), "quantize-")), q = parseQuantization(values.type);
  try {
    console.log("model         threads   ours MB/s   llama.cpp MB/s   share   bytes that differ");
    for (const name of ["SmolLM2", `llama ${values.width}`]) {
      const input = join(dir, "input.gguf"), ours = join(dir, "ours.gguf"), theirs = join(dir, "theirs.gguf");
      if (name === "SmolLM2") await convert(values.model, input);
      else await synthesise(values.model, input, Number(values.width));
      const megabytes = statSync(input).size / 1e6;
      for (const threads of new Set([1, Number(values.threads)])) {
        const best = { here: Infinity, there: Infinity };
        for (let i = 0; i < 2; i++) {
          best.here = Math.min(best.here, await quantizeHere(input, ours, q, threads));
          best.there = Math.min(best.there, quantizeThere(dir, input, theirs, q, threads));
        }
        const [a, b] = [megabytes / best.here, megabytes / best.there];
        console.log(
          `${name.padEnd(14)}${String(threads).padEnd(10)}${a.toFixed(0).padEnd(12)}${b.toFixed(0).padEnd(17)}` +
            `${(a / b).toFixed(2).padEnd(8)}${differences(ours, theirs)}`,
        );
      }
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
}
