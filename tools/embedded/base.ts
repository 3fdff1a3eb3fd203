/**
 * The embedded model before training: a Hugging Face folder with its config, the tokenizer trained on the corpus, the
 * chat template, and random weights (normal, deviation 0.02; the projections that write to the residual stream divided by
 * √(2·layers), as in GPT-2).
 * @module
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../../src/core/philox.ts";
import { floatTensor, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { tokenizerJson, trainBpe } from "./bpe.ts";
import { documents } from "./corpus.ts";
import { instructions } from "./instructions.ts";

/** Ends a document of the corpus and an answer. */
export const END = "<|end|>";

/** Sizes of the model. */
export const SHAPE = { dim: 192, layers: 6, heads: 6, kvHeads: 3, ffn: 448, context: 512 } as const;

/** A multiple of 32, which block formats and the matrix kernels like. */
const VOCAB = 1728;
/** Documents the tokenizer is trained on. */
const BPE_DOCUMENTS = 8000;

const CHAT_TEMPLATE = "{%- for message in messages -%}" +
  "{%- if message.role == 'user' -%}{{ 'Question: ' + message.content + '\\n' }}" +
  "{%- elif message.role == 'assistant' -%}{{ 'Answer: ' + message.content + eos_token }}" +
  "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}" +
  "{%- else -%}{{ message.content + '\\n' }}{%- endif -%}" +
  "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'Answer:' }}{%- endif -%}";

/** Writes the folder. */
export async function writeBase(dir: string, seed: number): Promise<void> {
  mkdirSync(dir, { recursive: true });
  const json = (name: string, value: unknown) => writeFileSync(join(dir, name), JSON.stringify(value, null, 1) + "\n");
  json("tokenizer.json", tokenizerJson(trainBpe(sample(seed), VOCAB - 257, 2), [END]));
  json("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: END,
    pad_token: END,
    bos_token: null,
    add_bos_token: false,
    model_max_length: SHAPE.context,
    chat_template: CHAT_TEMPLATE,
  });
  json("config.json", config());
  await writeSafetensors(join(dir, "model.safetensors"), randomWeights(seed));
}

/** What the tokenizer learns from: documents, and the words of the instruction set. */
function* sample(seed: number): Generator<string> {
  let n = 0;
  for (const text of documents(seed)) {
    yield text;
    if (++n === BPE_DOCUMENTS) break;
  }
  for (const row of instructions(seed).train) {
    yield `Question: ${row.messages[0].content}\nAnswer: ${row.messages[1].content}`;
  }
}

function config(): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: VOCAB,
    hidden_size: SHAPE.dim,
    intermediate_size: SHAPE.ffn,
    num_hidden_layers: SHAPE.layers,
    num_attention_heads: SHAPE.heads,
    num_key_value_heads: SHAPE.kvHeads,
    max_position_embeddings: SHAPE.context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    bos_token_id: null,
    eos_token_id: 0,
    pad_token_id: 0,
    torch_dtype: "float32",
  };
}

function randomWeights(seed: number): ReturnType<typeof floatTensor>[] {
  const { dim: D, layers, heads, kvHeads, ffn: F } = SHAPE, kv = D / heads * kvHeads, random = new Random(seed, 3);
  const normal = (name: string, rows: number, cols: number, deviation = 0.02) =>
    floatTensor(name, Float32Array.from({ length: rows * cols }, () => deviation * random.normal()), [rows, cols]);
  const ones = (name: string) => floatTensor(name, new Float32Array(D).fill(1), [D]);
  const last = 0.02 / Math.sqrt(2 * layers);
  const blocks = Array.from({ length: layers }, (_, n) => {
    const at = `model.layers.${n}`;
    return [
      ones(`${at}.input_layernorm.weight`),
      normal(`${at}.self_attn.q_proj.weight`, D, D),
      normal(`${at}.self_attn.k_proj.weight`, kv, D),
      normal(`${at}.self_attn.v_proj.weight`, kv, D),
      normal(`${at}.self_attn.o_proj.weight`, D, D, last),
      ones(`${at}.post_attention_layernorm.weight`),
      normal(`${at}.mlp.gate_proj.weight`, F, D),
      normal(`${at}.mlp.up_proj.weight`, F, D),
      normal(`${at}.mlp.down_proj.weight`, D, F, last),
    ];
  });
  return [normal("model.embed_tokens.weight", VOCAB, D), ...blocks.flat(), ones("model.norm.weight")];
}
