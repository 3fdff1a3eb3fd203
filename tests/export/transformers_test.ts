/** transformers and peft load what we write: the adapter on its base, and the merged folder, give our logits. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { writeModelFolder } from "../../src/export/hugging_face.ts";
import { mergeModel } from "../../src/export/merge.ts";
import { Prober } from "../../src/export/probe.ts";
import { type Adapter, adapterParts, type AdapterSettings } from "../../src/formats/adapter.ts";
import { withoutZeroDirections } from "../../src/formats/adapter_rank.ts";
import { writePeft } from "../../src/formats/peft.ts";
import { loadModel, openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder } from "../formats/files.ts";
import { askPython, python, why } from "../oracles/python.ts";
import { EXPRESSIBLE, tinyAdapter, writeTinyFolder } from "./tiny_folder.ts";

const IDS = Array.from({ length: 24 }, (_, i) => (17 * i * i + 5 * i + 3) % 271);

const CASES: Record<string, Partial<AdapterSettings>> = {
  llama: { dora: true, rankPattern: { down_proj: 5 } },
  gemma2: { rslora: true },
  phi3: { alphaPattern: { o_proj: 20 } },
  qwen3: { rslora: true, r: 4, alpha: 3 },
};

/** As adaptive ranks leave it: the n-th pair keeps the first 1 + n % 4 of its directions, the others are zero. */
function lowerRanks(adapter: Adapter): Adapter {
  let n = 0;
  for (const [name, { shape: [r, inputs], values }] of adapter.tensors) {
    if (!name.endsWith(".lora_A.weight")) continue;
    const b = adapter.tensors.get(name.replace("lora_A", "lora_B"))!, left = 1 + n++ % 4;
    values.fill(0, left * inputs!);
    b.values.forEach((_, i) => i % r! >= left ? b.values[i] = 0 : undefined);
  }
  return withoutZeroDirections(adapter);
}

describe.skipIf(!python)(
  `transformers and peft${why}`,
  () => {
    test("load our adapters and our merged folders, with our logits", async () => {
      const backend = await createWasmBackend({ threads: 1 });
      await inFolder(async (dir) => {
        const ours = new Map<string, Float32Array>();
        for (const [name, settings] of Object.entries(CASES)) {
          const [base, lora, merged] = ["base", "lora", "merged"].map((n) => join(dir, name, n)) as [
            string,
            string,
            string,
          ];
          for (const path of [base, lora]) mkdirSync(path, { recursive: true });
          await writeTinyFolder(base, EXPRESSIBLE[name]!);
          writeFileSync(join(dir, name, "ids.json"), JSON.stringify(IDS));
          const source = openModel(base), whole = tinyAdapter(source, settings);
          const adapter = name === "qwen3" ? lowerRanks(whole) : whole;
          await writePeft(lora, adapter);
          const model = mergeModel(source, { ...adapterParts(adapter), full: false });
          await writeModelFolder(merged, model, { tokenizer: loadTokenizer(base), dtype: "f32" });
          source.close();
          const again = openModel(merged), loaded = await loadModel(again, { backend, maxLength: IDS.length });
          const prober = new Prober(loaded, IDS.length);
          ours.set(name, await prober.logits(IDS));
          prober.close();
          loaded.close();
          again.close();
        }
        const adapted = await askPython<Record<string, number>>("transformers_check.py", dir);
        for (const [name, logits] of ours) {
          const bytes = readFileSync(join(dir, name, "logits.f32"));
          const theirs = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
          const worst = logits.reduce((m, v, i) => Math.max(m, Math.abs(v - theirs[i]!)), 0);
          expect(worst, name).toBeLessThan(1e-4);
          expect(adapted[name], name).toBeLessThan(1e-4);
        }
      });
      backend.close();
    });
  },
);
