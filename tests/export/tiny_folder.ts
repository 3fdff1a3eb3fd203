/**
 * Tiny models of every family as Hugging Face folders, with a byte-level tokenizer, in configs that a GGUF can express.
 * Weights are halves already, so that an f16 file holds them exactly.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../../src/core/philox.ts";
import { type Adapter, type AdapterSettings, type FloatTensor, rankOf } from "../../src/formats/adapter.ts";
import { fromHalf, toHalf } from "../../src/formats/float16.ts";
import { floatTensor, writeSafetensorsFolder } from "../../src/formats/safetensors_write.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { blockLinears, type ModelSource } from "../../src/models/mod.ts";
import { expandNames } from "../../src/models/names.ts";
import { familyOf } from "../../src/models/registry.ts";

const VOCAB = 288;

/** qwen2 and phi3 further down have a head size of 16: llama.cpp wants their heads to be as wide as the model together. */
const SIZES = {
  vocab_size: VOCAB,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 32,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  bos_token_id: 256,
  eos_token_id: 257,
  pad_token_id: 257,
  tie_word_embeddings: true,
};
const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};
const LONGROPE = {
  rope_type: "longrope",
  short_factor: Array.from({ length: 8 }, (_, i) => 1 + i / 20),
  long_factor: Array.from({ length: 8 }, (_, i) => 1 + i / 4),
};

/** A config of each family, with what tells it from llama switched on as far as a GGUF can say it. */
export const EXPRESSIBLE: Readonly<Record<string, HfConfig>> = {
  llama: { ...SIZES, model_type: "llama", tie_word_embeddings: false },
  "llama with biases": { ...SIZES, model_type: "llama", attention_bias: true, mlp_bias: true },
  "llama 3 rope": { ...SIZES, model_type: "llama", rope_theta: 500000, rope_scaling: LLAMA3 },
  "llama yarn": {
    ...SIZES,
    model_type: "llama",
    rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 },
  },
  mistral: { ...SIZES, model_type: "mistral", sliding_window: null },
  qwen2: { ...SIZES, head_dim: 16, model_type: "qwen2", rope_theta: 1e6 },
  qwen3: { ...SIZES, model_type: "qwen3", rope_theta: 1e6 },
  gemma: { ...SIZES, model_type: "gemma" },
  gemma2: { ...SIZES, model_type: "gemma2", sliding_window: 8, query_pre_attn_scalar: 32 },
  gemma3: { ...SIZES, model_type: "gemma3_text", sliding_window: 8, query_pre_attn_scalar: 32, num_hidden_layers: 7 },
  phi3: { ...SIZES, head_dim: 16, model_type: "phi3", tie_word_embeddings: false, sliding_window: null },
  "phi3 longrope": {
    ...SIZES,
    head_dim: 16,
    model_type: "phi3",
    tie_word_embeddings: false,
    sliding_window: null,
    // llama.cpp chooses between the lists by its context, which it rounds up to 256.
    original_max_position_embeddings: 256,
    max_position_embeddings: 512,
    rope_scaling: LONGROPE,
  },
  smollm3: { ...SIZES, model_type: "smollm3", num_hidden_layers: 5, no_rope_layers: [1, 1, 1, 0, 1] },
};

/** GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from U+0100 on. */
function byteLetters(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
}

const MERGES = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "r e", "o n", "Ġ s", "n d", "e r"];

/** tokenizer.json: 256 bytes, BOS, EOS, a turn marker, ten merges; three rows of the embedding stay unused. */
export function tinyTokenizer(): Record<string, unknown> {
  const pieces = [...byteLetters(), "<s>", "</s>", "<|turn|>", ...MERGES.map((m) => m.replace(" ", ""))];
  const added = ["<s>", "</s>", "<|turn|>"].map((content, i) => ({
    ...{ id: 256 + i, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  }));
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: bytes,
    post_processor: null,
    decoder: bytes,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: false },
      vocab: Object.fromEntries(pieces.map((p, i) => [p, i])),
      merges: MERGES,
    },
  };
}

/** A chat template of three kinds of turn. */
export const TEMPLATE = "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}" +
  "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}";

/** Writes config, tokenizer and random weights; norms near 1 (or 0 where the weight is 1 + w). */
export async function writeTinyFolder(dir: string, hf: HfConfig, seed = 7): Promise<void> {
  const family = familyOf(hf), config = family.config(hf), random = new Random(seed);
  const half = (x: number) => fromHalf(toHalf(x));
  const tensors = expandNames(family.tensors, config).map((t) => {
    const n = t.shape.reduce((a, b) => a * b, 1);
    const scale = t.ours === "embed" ? 0.1 : t.shape.length > 1 ? 1 / Math.sqrt(t.shape[1]!) : 0.1;
    const middle = t.ours.includes("norm") && !config.norm.plusOne ? 1 : 0;
    return floatTensor(t.hf, Float32Array.from({ length: n }, () => half(middle + scale * random.normal())), t.shape);
  });
  await writeSafetensorsFolder(dir, tensors);
  const json = (name: string, value: unknown) => writeFileSync(join(dir, name), JSON.stringify(value, null, 1));
  json("config.json", hf);
  json("tokenizer.json", tinyTokenizer());
  const specials = { bos_token: "<s>", eos_token: "</s>", add_bos_token: true, chat_template: TEMPLATE };
  json("tokenizer_config.json", { tokenizer_class: "PreTrainedTokenizerFast", ...specials });
}

/** A random adapter on every linear of the blocks. */
export function tinyAdapter(source: ModelSource, o: Partial<AdapterSettings> = {}): Adapter {
  const settings: AdapterSettings = {
    ...{ r: 3, alpha: 6, rslora: false, dora: false, dropout: 0, targetModules: blockLinears(source.config) },
    ...{ rankPattern: {}, alphaPattern: {}, modulesToSave: [], bias: "none", baseModel: null, ...o },
  };
  const random = new Random(23);
  const tensors = new Map<string, FloatTensor>();
  const set = (name: string, scale: number, middle: number, ...shape: number[]) => {
    const n = shape.reduce((a, b) => a * b, 1);
    tensors.set(name, { shape, values: Float32Array.from({ length: n }, () => middle + scale * random.normal()) });
  };
  for (const t of source.tensors.filter((t) => t.shape.length === 2 && t.ours.startsWith("layers."))) {
    const module = t.hf.replace(/\.weight$/, ""), rank = rankOf(settings, module);
    set(`${module}.lora_A.weight`, 0.2, 0, rank, t.shape[1]!);
    set(`${module}.lora_B.weight`, 0.2, 0, t.shape[0]!, rank);
    if (settings.dora) set(`${module}.lora_magnitude_vector`, 0.1, 1, t.shape[0]!);
  }
  return { settings, tensors };
}
