/**
 * Writes a merged model as a Hugging Face folder: weights in 16 bits, or the blocks' linears in bitsandbytes' 4; config;
 * tokenizer. What the source folder had is copied; what a GGUF never had is made from its metadata.
 * @module
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../core/errors.ts";
import { encodeBf16, encodeFiniteHalves } from "../formats/float16.ts";
import { writeWhole } from "../formats/new_file.ts";
import { type TensorToWrite, writeSafetensorsFolder } from "../formats/safetensors_write.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import { isNf4, NF4_CONFIG, nf4Tensors } from "./bitsandbytes.ts";
import { type MergedModel, type MergedTensor, rowRanges } from "./merge.ts";
import { tokenizerFiles } from "./tokenizer_files.ts";

/** Types a folder's weights may have. */
export type FolderType = "f16" | "bf16" | "f32" | "nf4";

/** How a folder is written. */
export interface FolderOptions {
  readonly tokenizer: Tokenizer;
  /** Default: bf16 where the source has it, else f16. */
  readonly dtype?: FolderType;
  /** Bytes of a shard; default 5e9, as transformers. */
  readonly shardBytes?: number;
  readonly onProgress?: (bytes: number, total: number) => void;
}

/** transformers' class of each model_type, for configs that name none. */
const CLASSES: Readonly<Record<string, string>> = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
  gemma: "GemmaForCausalLM",
  gemma2: "Gemma2ForCausalLM",
  gemma3_text: "Gemma3ForCausalLM",
  phi3: "Phi3ForCausalLM",
  smollm3: "SmolLM3ForCausalLM",
};

const TORCH_NAMES = { f16: "float16", bf16: "bfloat16", f32: "float32", nf4: "bfloat16" } as const;

/** Files of a model's folder that belong to the tokenizer or to generation. */
const COPIED =
  /^(tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|generation_config\.json|chat_template\.(jinja|json)|.*\.(model|tiktoken))$/;

/** Elements of a chunk. */
const CHUNK = 1 << 20;

function typeOfFolder(model: MergedModel): FolderType {
  return model.tensors.some((t) => t.stored.dtype === "bf16") ? "bf16" : "f16";
}

function* encodeChunks(t: MergedTensor, dtype: "f16" | "bf16" | "f32"): Generator<Uint8Array> {
  for (const [from, to] of rowRanges(t, CHUNK)) {
    const x = t.rows(from, to);
    if (dtype === "f16") yield encodeFiniteHalves(x, t.hf);
    else yield dtype === "bf16" ? encodeBf16(x) : new Uint8Array(x.buffer);
  }
}

/**
 * Fields that transformers takes as floats only, so that 30 must stand there as 30.0 (huggingface_hub's strict
 * dataclasses refuse the whole config otherwise).
 */
const FLOATS =
  /"(rope_theta|rope_local_base_freq|\w+_softcapping|\w*dropout|\w+_pdrop|\w+_eps|initializer_range|\w*factor|beta_\w+|mscale\w*)": (-?\d+)(?=[,\s}])/g;

/** `key` set to `value` in a JSON object's text, everything else as it was written. */
function setField(text: string, key: string, value: unknown): string {
  const json = JSON.stringify(value);
  const found = new RegExp(`"${key}"\\s*:\\s*("[^"]*"|[\\w.+-]+)`);
  if (found.test(text)) return text.replace(found, `"${key}": ${json}`);
  return text.replace("{", `{\n  "${key}": ${json},`);
}

/** config.json's text with what the export changed: type, and a head taken apart. */
function configText(model: MergedModel, dtype: FolderType): string {
  const path = join(model.source.path, "config.json");
  const own = existsSync(path) ? readFileSync(path, "utf8") : configFromGguf(model);
  const typed = setField(own, /"dtype"/.test(own) ? "dtype" : "torch_dtype", TORCH_NAMES[dtype]);
  const tied = setField(typed, "tie_word_embeddings", model.config.tied);
  return dtype === "nf4" ? setField(tied, "quantization_config", NF4_CONFIG) : tied;
}

/** @throws {ConfigError} for rope settings that only a GGUF has */
function configFromGguf({ hf }: MergedModel): string {
  if ((hf.rope_scaling as { rope_type?: string } | undefined)?.rope_type === "factors") {
    throw new ConfigError(
      "Cannot write config.json: the GGUF keeps its rope scaling as factors, which transformers has no setting for; " +
        "export from the original folder",
    );
  }
  const json = { architectures: [CLASSES[String(hf.model_type)]], ...hf };
  return JSON.stringify(json, null, 2).replace(FLOATS, '"$1": $2.0') + "\n";
}

/** Writes text under a temporary name and renames it. */
function writeText(path: string, text: string): Promise<void> {
  return writeWhole(path, async (file) => file.write(new TextEncoder().encode(text)));
}

/** Copies or makes the tokenizer's files; a template set in training is written beside them. */
async function writeTokenizer(dir: string, model: MergedModel, tokenizer: Tokenizer): Promise<void> {
  const { source } = model;
  if (source.gguf) {
    for (const [name, text] of tokenizerFiles(source.gguf.meta, tokenizer, source.path)) {
      await writeText(join(dir, name), text);
    }
  } else {
    for (const name of readdirSync(source.path).filter((n) => COPIED.test(n))) {
      copyFileSync(join(source.path, name), join(dir, name));
    }
    // transformers prefers this file to any other place a template may stand.
    if (tokenizer.template) await writeText(join(dir, "chat_template.jinja"), tokenizer.template);
  }
  if (existsSync(join(dir, "generation_config.json"))) return;
  const generation = { bos_token_id: tokenizer.bos, eos_token_id: [...tokenizer.eos], pad_token_id: tokenizer.pad };
  const set = Object.entries(generation).filter(([, v]) => v !== null);
  await writeText(join(dir, "generation_config.json"), JSON.stringify(Object.fromEntries(set), null, 2) + "\n");
}

/**
 * Makes all that stands beside the weights once and writes nothing.
 * @throws {ConfigError} for what `writeModelFolder` would only meet at its end
 */
export function checkModelFolder(model: MergedModel, tokenizer: Tokenizer): void {
  configText(model, typeOfFolder(model));
  if (model.source.gguf) tokenizerFiles(model.source.gguf.meta, tokenizer, model.source.path);
}

/**
 * Writes the folder, which is made if need be.
 * @returns names of the weight files
 * @throws {ConfigError} for values that the type cannot hold, or a source that transformers' config cannot describe
 */
export async function writeModelFolder(dir: string, model: MergedModel, o: FolderOptions): Promise<string[]> {
  const dtype = o.dtype ?? typeOfFolder(model);
  const config = configText(model, dtype);
  mkdirSync(dir, { recursive: true });
  const size = (t: MergedTensor) => t.shape.reduce((a, b) => a * b, 1);
  const total = model.tensors.reduce((n, t) => n + size(t), 0);
  let done = 0;
  const plain = (t: MergedTensor, dtype: "f16" | "bf16" | "f32"): TensorToWrite => ({
    name: t.hf,
    dtype,
    shape: t.shape,
    *chunks() {
      yield* encodeChunks(t, dtype);
      o.onProgress?.(done += size(t), total);
    },
  });
  const tensors = model.tensors.flatMap((t) => {
    if (dtype !== "nf4") return [plain(t, dtype)];
    return isNf4(t) ? nf4Tensors(t) : [plain(t, "bf16")];
  });
  const names = await writeSafetensorsFolder(dir, tensors, o.shardBytes);
  await writeText(join(dir, "config.json"), config);
  await writeTokenizer(dir, model, o.tokenizer);
  return names;
}
