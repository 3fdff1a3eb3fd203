/**
 * Adapters in mlx-lm's format: adapter_config.json with fine_tune_type and lora_parameters, and adapters.safetensors
 * with lora_a [I,R] and lora_b [R,O], the transposes of peft's. Source: mlx-lm tuner/{lora,dora,utils}.py.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import { type Adapter, adapterParts, type FloatTensor, type LoraPair } from "./adapter.ts";
import { writeWhole } from "./new_file.ts";
import { readJsonObject } from "./peft.ts";
import { openSafetensors } from "./safetensors.ts";
import { floatTensor, type TensorToWrite, writeSafetensors } from "./safetensors_write.ts";
import { readFloats } from "./stored.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapters.safetensors";

/** [rows, cols] to [cols, rows]. */
function transpose(x: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(x.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = x[i * cols + j]!;
  return out;
}

/** Whether `dir` holds an adapter in mlx-lm's format. */
export function isMlxAdapter(dir: string): boolean {
  const path = join(dir, CONFIG);
  return existsSync(path) && "lora_parameters" in readJsonObject(path);
}

/**
 * Reads mlx-lm's adapter folder.
 * @throws {FormatError} for malformed files; {ConfigError} for full fine-tunes and tensors that are no LoRA pair
 */
export function readMlx(dir: string): Adapter {
  const path = join(dir, CONFIG);
  const json = readJsonObject(path);
  const kind = json.fine_tune_type ?? "lora";
  if (kind !== "lora" && kind !== "dora") {
    throw new ConfigError(`Cannot use '${path}': fine_tune_type ${kind} is no adapter`);
  }
  const { rank, scale, dropout = 0 } = (json.lora_parameters ?? {}) as Record<string, unknown>;
  if (typeof rank !== "number" || typeof scale !== "number" || typeof dropout !== "number") {
    throw new FormatError(`Cannot read '${path}': lora_parameters need rank and scale`, path, 0);
  }
  const file = openSafetensors(join(dir, WEIGHTS));
  const tensors = new Map<string, FloatTensor>();
  const targets = new Set<string>();
  try {
    for (const t of file.tensors.values()) {
      const m = /^(.*)\.(lora_a|lora_b|m)$/.exec(t.name);
      const embedding = m?.[1]?.endsWith("embed_tokens");
      if (!m || (m[2] !== "m" && t.shape.length !== 2) || embedding) {
        throw new ConfigError(`Cannot use '${dir}': tensor '${t.name}' is no LoRA pair of a linear layer`);
      }
      const [rows = 0, cols = 0] = t.shape;
      targets.add(m[1]!.split(".").pop()!);
      if (m[2] === "m") {
        tensors.set(`${m[1]}.lora_magnitude_vector`, { shape: t.shape, values: readFloats(t) });
      } else {
        const name = `${m[1]}.lora_${m[2] === "lora_a" ? "A" : "B"}.weight`;
        tensors.set(name, { shape: [cols, rows], values: transpose(readFloats(t), rows, cols) });
      }
    }
  } finally {
    file.close();
  }
  const settings = {
    r: rank,
    alpha: scale * rank,
    rslora: false,
    dora: kind === "dora",
    dropout,
    targetModules: [...targets].sort(),
    rankPattern: {},
    alphaPattern: {},
    modulesToSave: [],
    bias: "none" as const,
    baseModel: typeof json.model === "string" ? json.model : null,
  };
  return { settings, tensors };
}

/** A pair under mlx-lm's one rank and scale: zero rows up to `rank`, a differing scale folded into b. */
function mlxTensors(module: string, p: LoraPair, rank: number, scale: number): TensorToWrite[] {
  const a = new Float32Array(p.inputs * rank);
  const b = new Float32Array(rank * p.outputs);
  const factor = p.scale / scale;
  for (let r = 0; r < p.rank; r++) {
    for (let i = 0; i < p.inputs; i++) a[i * rank + r] = p.a[r * p.inputs + i]!;
    for (let o = 0; o < p.outputs; o++) b[r * p.outputs + o] = p.b[o * p.rank + r]! * factor;
  }
  const out = [
    floatTensor(`${module}.lora_a`, a, [p.inputs, rank]),
    floatTensor(`${module}.lora_b`, b, [rank, p.outputs]),
  ];
  if (p.magnitude) out.push(floatTensor(`${module}.m`, p.magnitude, [p.outputs]));
  return out;
}

/**
 * Writes a folder that mlx-lm's load_adapters takes; the folder must exist.
 * @param layers blocks of the model, since mlx-lm counts adapted layers from the last one
 * @throws {ConfigError} for what the format cannot say: whole tensors, adapters on embeddings
 */
export async function writeMlx(dir: string, adapter: Adapter, layers: number): Promise<void> {
  const { pairs, embeddings, whole } = adapterParts(adapter);
  const foreign = [...embeddings.keys(), ...whole.keys()][0];
  if (foreign) throw new ConfigError(`Cannot write an mlx-lm adapter: '${foreign}' is no LoRA pair of a linear layer`);
  const all = [...pairs.values()];
  const rank = Math.max(...all.map((p) => p.rank));
  const scale = all[0]!.scale;
  const blocks = [...pairs.keys()].map((k) => /\.layers\.(\d+)\.(.*)$/.exec(k));
  const first = Math.min(...blocks.map((m) => m ? Number(m[1]) : layers));
  const keys = [...pairs.keys()].map((k, i) => blocks[i]?.[2] ?? k);
  const config = {
    fine_tune_type: adapter.settings.dora ? "dora" : "lora",
    model: adapter.settings.baseModel,
    num_layers: layers - first,
    lora_parameters: { rank, scale, dropout: adapter.settings.dropout, keys: [...new Set(keys)].sort() },
  };
  const tensors = [...pairs].flatMap(([module, p]) => mlxTensors(module, p, rank, scale));
  await writeSafetensors(join(dir, WEIGHTS), tensors.sort((a, b) => a.name < b.name ? -1 : 1), { format: "mlx" });
  const json = JSON.stringify(config, null, 4) + "\n";
  await writeWhole(join(dir, CONFIG), async (file) => file.write(new TextEncoder().encode(json)));
}
