/** mlx-lm (on MLX's CPU build) loads the adapters we write in its format, and we load the ones it writes: equal logits. */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { Adapter } from "../../src/formats/adapter.ts";
import { readMlx, writeMlx } from "../../src/formats/mlx.ts";
import { loadModel, openModel, readAdapter, writeAdapter } from "../../src/models/mod.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { inFolder } from "../formats/files.ts";
import { openCase, packRows } from "../golden/case.ts";
import { relativeNorm } from "../golden/compare.ts";
import { loadCase, packedLogits } from "../golden/tiny.ts";
import { askPython, python, why } from "./python.ts";

const ROOT = fileURLToPath(new URL("../fixtures/golden/", import.meta.url));
const IDS = Array.from({ length: 20 }, (_, i) => 3 + (17 * i * i + 5 * i) % 90);

/**
 * Golden cases whose adapter mlx-lm's format can say, and whose model mlx-lm computes as transformers does (its gemma 2 and
 * mistral do not slide, its phi 3 has no short factors).
 */
const OURS = [
  ...[
    "llama-linear",
    "llama3",
    "qwen3-yarn",
    "gemma3-linear",
    "smollm3",
    "phi3-longrope",
    "lora-dora-phi3",
  ],
  ...[
    "lora-regex-targets",
    "lora-layers-to-transform",
    "lora-all-linear",
    "lora-patterns",
    "lora-dora-rslora",
  ],
];
/** Relative norm of logits. mlx-lm rounds gemma's embedding scale to bf16 (gemma3_text.py): 1e-4 of it at this size. */
const bound = (name: string): number => name.startsWith("gemma") ? 2e-4 : 1e-6;
/** Adapters that mlx-lm makes: on the last `layers` blocks. */
const THEIRS = [
  {
    name: "last-layer",
    base: "base-llama",
    layers: 1,
    rank: 4,
    scale: 20,
    dora: false,
    keys: ["self_attn.q_proj"],
  },
  {
    name: "all-keys",
    base: "base-llama",
    layers: 2,
    rank: 8,
    scale: 2.5,
    dora: false,
    keys: null,
  },
  {
    name: "dora",
    base: "base-llama",
    layers: 3,
    rank: 3,
    scale: 1.5,
    dora: true,
    keys: ["mlp.down_proj", "self_attn.v_proj"],
  },
  {
    name: "head",
    base: "base-llama",
    layers: 1,
    rank: 2,
    scale: 4,
    dora: false,
    keys: ["self_attn.k_proj", "lm_head"],
  },
  {
    name: "gemma",
    base: "gemma3-linear",
    layers: 2,
    rank: 4,
    scale: 10,
    dora: false,
    keys: ["self_attn.o_proj"],
  },
];

/** A model folder as mlx-lm reads it: with the rope in the older form. */
function copyBase(from: string, to: string): string {
  mkdirSync(to, { recursive: true });
  const old = join(from, "config.old.json");
  copyFileSync(
    existsSync(old) ? old : join(from, "config.json"),
    join(to, "config.json"),
  );
  copyFileSync(join(from, "model.safetensors"), join(to, "model.safetensors"));
  return to;
}

const floats = (path: string): Float32Array => new Float32Array(Uint8Array.from(readFileSync(path)).buffer);
const batch = packRows(
  Float32Array.from(IDS),
  new Float32Array(IDS.length).fill(1),
  Float32Array.from(IDS),
  IDS.length,
);

async function logitsOf(
  be: Backend,
  base: string,
  adapter: Adapter,
): Promise<Float32Array> {
  const source = openModel(base),
    modules = [...adapter.tensors.keys()].flatMap((n) => /^(.*)\.lora_A/.exec(n)?.[1] ?? []);
  const lora = { ...adapter.settings, targetModules: modules };
  const model = await loadModel(source, {
    backend: be,
    maxLength: IDS.length,
    lora,
  });
  writeAdapter(model, adapter);
  const logits = await packedLogits(model, batch);
  source.close();
  model.close();
  return logits;
}

describe.skipIf(!python)(`mlx-lm${why}`, () => {
  test("loads our adapters, with our logits", async () => {
    const be = await createWasmBackend({ threads: 1 });
    await inFolder(async (dir) => {
      const ours = new Map<string, Float32Array>(), list: unknown[] = [];
      for (const name of OURS) {
        const c = openCase(join(ROOT, name)),
          model = await loadCase(c, be, c.weights, IDS.length);
        mkdirSync(join(dir, name));
        await writeMlx(
          join(dir, name),
          await readAdapter(model),
          model.config.layers,
        );
        ours.set(name, await packedLogits(model, batch));
        list.push({
          name,
          base: copyBase(c.weights, join(dir, "bases", name)),
          ids: IDS,
          ours: true,
        });
        model.close();
        c.golden.close();
      }
      writeFileSync(join(dir, "list.json"), JSON.stringify(list));
      await askPython("mlx_check.py", dir);
      for (const [name, logits] of ours) {
        expect(relativeNorm(logits, floats(join(dir, `${name}.f32`))), name)
          .toBeLessThan(bound(name));
      }
    });
    be.close();
  });

  test("makes adapters that we load, with its logits", async () => {
    const be = await createWasmBackend({ threads: 1 });
    await inFolder(async (dir) => {
      const list = THEIRS.map((
        { name, base, layers, rank, scale, dora, keys },
      ) => ({
        ...{ name, ids: IDS, ours: false, layers, dora },
        base: copyBase(join(ROOT, base), join(dir, "bases", name)),
        parameters: { rank, scale, dropout: 0, ...(keys ? { keys } : {}) },
      }));
      writeFileSync(join(dir, "list.json"), JSON.stringify(list));
      await askPython("mlx_check.py", dir);
      for (const { name, base } of list) {
        const logits = await logitsOf(be, base, readMlx(join(dir, name)));
        expect(relativeNorm(logits, floats(join(dir, `${name}.f32`))), name)
          .toBeLessThan(bound(name));
      }
    });
    be.close();
  });
});
