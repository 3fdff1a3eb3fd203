/**
 * An adapter as GGUF, for llama.cpp's --lora and Ollama's ADAPTER. Only rows of b change places where the architecture
 * interleaves heads. Source: llama.cpp's src/llama-adapter.cpp (scale = alpha / rank of the pair) and convert_lora_to_gguf.py.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { type Adapter, type AdapterParts, adapterParts, type LoraPair } from "../formats/adapter.ts";
import { type GgufMeta, typeOfValue, writeGguf } from "../formats/gguf_write.ts";
import { floatTensor, type TensorToWrite } from "../formats/safetensors_write.ts";
import type { ModelSource, SourceTensor } from "../models/mod.ts";
import { interleaveHeads } from "./gguf.ts";

/** b [O,R] times `factor`, its rows in the file's order. */
function fileB(t: SourceTensor, pair: LoraPair, source: ModelSource, factor: number): Float32Array {
  const b = pair.b.map((v) => v * factor);
  const { heads, kvHeads } = source.config;
  const n = t.ggufAs === "permuteQ" ? heads : t.ggufAs === "permuteK" ? kvHeads : 0;
  return n ? interleaveHeads(b, pair.outputs / n, pair.rank) : b;
}

/** a [R,V] as [V,R]. */
function transposed(pair: LoraPair): Float32Array {
  const out = new Float32Array(pair.a.length);
  for (let r = 0; r < pair.rank; r++) {
    for (let v = 0; v < pair.inputs; v++) out[v * pair.rank + r] = pair.a[r * pair.inputs + v]!;
  }
  return out;
}

function refuse(parts: AdapterParts, source: ModelSource): void {
  const cannot = (what: string) =>
    new ConfigError(`Cannot write the adapter as GGUF: ${what}; export the merged model`);
  const whole = [...parts.whole.keys()][0];
  if (whole) throw cannot(`'${whole}' was trained whole, and the file holds low-rank pairs only`);
  const dora = [...parts.pairs].find(([, p]) => p.magnitude);
  if (dora) throw cannot(`'${dora[0]}' has a DoRA magnitude, which llama.cpp does not know`);
  if (source.config.tied && (parts.embeddings.size > 0 || parts.pairs.has("lm_head"))) {
    throw cannot("embedding and head are one tensor there, and one of them was trained");
  }
}

function pairTensors(t: SourceTensor, pair: LoraPair, table: boolean, source: ModelSource, alpha: number) {
  const factor = pair.scale * pair.rank / alpha;
  const { rank, inputs, outputs } = pair;
  return [
    table
      ? floatTensor(`${t.gguf}.lora_a`, transposed(pair), [inputs, rank])
      : floatTensor(`${t.gguf}.lora_a`, pair.a, [rank, inputs]),
    floatTensor(`${t.gguf}.lora_b`, fileB(t, pair, source, factor), [outputs, rank]),
  ];
}

/**
 * Writes the adapter, f32.
 * @throws {ConfigError} for what llama.cpp cannot apply: DoRA, whole tensors, adapters on a tied head
 */
export async function writeLoraGguf(path: string, adapter: Adapter, source: ModelSource): Promise<void> {
  const parts = adapterParts(adapter);
  refuse(parts, source);
  const { settings } = adapter;
  // The file has one alpha; pairs whose scale it does not give have the rest in b.
  const alpha = settings.rslora ? settings.alpha * Math.sqrt(settings.r) : settings.alpha || 1;
  const tensors: TensorToWrite[] = [];
  for (const [module, pair] of [...parts.pairs, ...parts.embeddings]) {
    const t = source.tensors.find((t) => t.hf === `${module}.weight`);
    if (!t) throw new ConfigError(`Cannot write the adapter as GGUF: the model has no '${module}'`);
    tensors.push(...pairTensors(t, pair, parts.embeddings.has(module), source, alpha));
  }
  const fields: [string, string | number][] = [
    ["general.type", "adapter"],
    ["adapter.type", "lora"],
    ["general.architecture", source.family.ggufArch],
    ["general.quantization_version", 2],
    ...(settings.baseModel ? [["general.base_model.0.name", settings.baseModel] as [string, string]] : []),
  ];
  const meta: GgufMeta = new Map(fields.map(([key, value]) => [key, { value, type: typeOfValue(value) }]));
  if (settings.baseModel) meta.set("general.base_model.count", { value: 1, type: typeOfValue(1) });
  meta.set("adapter.lora.alpha", { value: alpha, type: { type: "f32", array: false } });
  await writeGguf(path, meta, tensors);
}
