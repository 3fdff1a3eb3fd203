/**
 * Is a step the same to the bit whatever stays of the blocks between the passes? On the GPU's own kernels, where products wait
 * for company and a step is a recorded graph: four steps (one by one, recorded, replayed) at each level, with inputs on the
 * device and in host memory, against all kept. In 16 bits with dropout the dropped input's place in the arena decides whether
 * an adapter's product still waits with its base's, and so whether their sum is rounded once or twice: there the first step's
 * loss and gradient norm must agree to what that rounding is worth.
 *
 *   deno run -A --no-config tests/gpu/checkpointing.ts [cuda | wasm] [bf16,f32]
 *
 * @module
 */
import process from "node:process";
import { candidate as cuda } from "../../cuda/mod.ts";
import type { Backend } from "../../src/core/backend.ts";
import type { Dense } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import type { Batch } from "../../src/data/types.ts";
import { memoryBytes } from "../../src/formats/bytes.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { loadModel } from "../../src/models/load.ts";
import { expandNames } from "../../src/models/names.ts";
import { familyOf } from "../../src/models/registry.ts";
import type { ModelSource } from "../../src/models/source.ts";
import { LEVEL, type Level } from "../../src/nn/mixer.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import { Stepper } from "../../src/train/step.ts";
import { candidate as wasm } from "../../wasm/mod.ts";

const LAYERS = 6, LENGTH = 192, SEQUENCES = 4, STEPS = 4;

/** Sizes that meet Hopper's engines: rows in tiles of 128, heads of 64. */
const SHAPE: HfConfig = {
  ...{ vocab_size: 1000, hidden_size: 512, num_hidden_layers: LAYERS, num_attention_heads: 8, num_key_value_heads: 2 },
  ...{ head_dim: 64, intermediate_size: 1408, max_position_embeddings: 512, rms_norm_eps: 1e-5, eos_token_id: 2 },
};
const MODELS: Record<string, HfConfig> = {
  llama: { ...SHAPE, model_type: "llama", tie_word_embeddings: true },
  qwen3: { ...SHAPE, model_type: "qwen3", tie_word_embeddings: true },
  gemma3: { ...SHAPE, model_type: "gemma3_text", sliding_window: 64, sliding_window_pattern: 3 },
};

/** Weights of size 1/√inputs in bf16, norms near 1 (near 0 where the weight is 1 + w). */
function randomModel(hf: HfConfig): ModelSource {
  const family = familyOf(hf), config = family.config(hf), random = new Random(3);
  const tensors = expandNames(family.tensors, config).map((t) => {
    const n = t.shape.reduce((a, b) => a * b, 1), scale = t.shape.length > 1 ? 1 / Math.sqrt(t.shape[1]) : 0.1;
    const middle = t.ours.includes("norm") && !config.norm.plusOne ? 1 : 0;
    const values = Float32Array.from({ length: n }, () => middle + scale * random.normal());
    const bits = Uint16Array.from(new Uint32Array(values.buffer), (b) => b >>> 16);
    const source = memoryBytes(new Uint8Array(bits.buffer), t.hf);
    return { ...t, stored: { name: t.hf, dtype: "bf16" as const, shape: t.shape, source, offset: 0, bytes: 2 * n } };
  });
  return { path: "memory", kind: "safetensors", family, hf, config, tensors, gguf: null, close: () => {} };
}

function randomBatch(): Batch {
  const n = LENGTH * SEQUENCES, ids = Int32Array.from({ length: n }, (_, i) => (i * 7919 + 13) % 1000);
  return {
    ...{ ids, pos: ids.map((_, i) => i % LENGTH), targets: ids.map((_, i) => ids[(i + 1) % n]) },
    weights: Float32Array.from(ids, (_, i) => (i + 1) % LENGTH === 0 ? 0 : 1),
    cu: Int32Array.from({ length: SEQUENCES + 1 }, (_, i) => i * LENGTH),
  };
}

/** Loss and norm of each step, and the trained tensors after the last, as text that differs if a bit does. */
async function train(
  be: Backend,
  source: ModelSource,
  dropout: number,
  checkpoint: { levels: Level[]; offload?: boolean },
): Promise<string[]> {
  const lora = {
    ...{ r: 16, alpha: 16, rslora: false, dora: false, dropout, targetModules: "all-linear" as const, rankPattern: {} },
    ...{ alphaPattern: {}, modulesToSave: [], bias: "none" as const, baseModel: null },
  };
  const model = await loadModel(source, { backend: be, lora, checkpoint, maxLength: LENGTH }), random = new Random(5);
  for (const p of model.params!.list) {
    be.upload(
      p.value,
      Float32Array.from({ length: p.value.shape[0] * p.value.shape[1] }, () => 0.05 * random.normal()),
    );
  }
  const optimizer = createOptimizer(be, model.params!, {
    ...{ name: "adamw_torch", lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
    ...{ schedule: "constant", warmupSteps: 0, totalSteps: STEPS },
  });
  const pass = { maxTokens: LENGTH * SEQUENCES, maxSequences: SEQUENCES, maxLength: LENGTH, chunk: 256 };
  const stepper = new Stepper(model, optimizer, pass), out: string[] = [], batch = randomBatch();
  for (let t = 1; t <= STEPS; t++) {
    const { loss, gradNorm } = await stepper.step([batch, batch], { lr: 1e-3, t, seed: 1 });
    out.push(`step ${t} loss ${loss} norm ${gradNorm}`);
  }
  for (const [name, { values }] of await model.trained()) {
    const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
    out.push(`${name} ${words.reduce((h, w) => Math.imul(h ^ w, 0x01000193) >>> 0, 0x811c9dc5)}`);
  }
  for (const x of [stepper, optimizer, model]) x.close();
  return out;
}

/** Loss and norm of a step's line. */
const figures = (line: string): number[] => line.split(" ").filter((_, i) => i === 3 || i === 5).map(Number);

/** One rounding of 2^-9 in a sum, averaged over a gradient: 1e-4 seen; a wrong mask or a stale input is off by per cent. */
function near(found: string[], plain: string[]): boolean {
  const [a, b] = [figures(found[0]), figures(plain[0])];
  return a.every((x, i) => Math.abs(x - b[i]) <= 1e-3 * Math.abs(b[i]));
}

const [backend = "cuda", types = "bf16,f32"] = process.argv.slice(2), all = Object.values(LEVEL);
const MIXED: Level[][] = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 2, 2, 3, 3, 4]];
const sources = Object.entries(MODELS).map(([name, hf]) => [name, randomModel(hf)] as const);
let compared = 0, different = 0;
for (const actDtype of backend === "wasm" ? ["f32"] : types.split(",")) {
  const be = await (backend === "wasm" ? wasm : cuda).open({ actDtype: actDtype as Dense });
  const offloads = be.offloads() === null ? [false, true] : [false];
  for (const [name, source] of sources) {
    for (const dropout of actDtype === "bf16" ? [0, 0.1] : [0]) {
      const plain = await train(be, source, dropout, { levels: Array(LAYERS).fill(4) });
      if (!plain.slice(0, STEPS).every((l) => !/NaN|Infinity/.test(l))) throw new Error(`${name}: ${plain[0]}`);
      for (const offload of offloads) {
        for (const levels of [...all.map((l): Level[] => Array(LAYERS).fill(l)), ...MIXED]) {
          const found = await train(be, source, dropout, { levels, offload }),
            at = found.findIndex((l, i) => l !== plain[i]);
          compared++;
          if (at < 0 || (actDtype === "bf16" && dropout > 0 && near(found, plain))) continue;
          different++;
          console.log(
            `${name} ${actDtype} dropout ${dropout} levels ${levels}${offload ? " offloaded" : ""}: ${found[at]}, ` +
              `all kept: ${plain[at]}`,
          );
        }
      }
    }
  }
  be.close();
}
console.log(
  `checkpointing on ${backend}: ${
    compared - different
  } of ${compared} are plain to the bit (bf16 with dropout: to a rounding)`,
);
process.exit(different > 0 ? 1 : 0);
