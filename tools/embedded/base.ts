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

/** Sizes of a model and its tokenizer. */
export interface Shape {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  /** Longest sequence in tokens. */
  readonly context: number;
  /** Tokens, a multiple of 32, which block formats and the matrix kernels like. */
  readonly vocab: number;
  /** Documents the tokenizer is trained on. */
  readonly documents: number;
}

/** The embedded model's: 2.5 M parameters, 2.7 MB in q8_0. */
export const SHAPE: Shape = {
  ...{ dim: 192, layers: 6, heads: 6, kvHeads: 3, ffn: 448, context: 512, vocab: 1728, documents: 8000 },
};

const CHAT_TEMPLATE = "{%- for message in messages -%}" +
  "{%- if message.role == 'user' -%}{{ 'Question: ' + message.content + '\\n' }}" +
  "{%- elif message.role == 'assistant' -%}{{ 'Answer: ' + message.content + eos_token }}" +
  "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}" +
  "{%- else -%}{{ message.content + '\\n' }}{%- endif -%}" +
  "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'Answer:' }}{%- endif -%}";

/** Writes the folder. */
export async function writeBase(dir: string, seed: number, shape: Shape = SHAPE): Promise<void> {
  mkdirSync(dir, { recursive: true });
  const json = (name: string, value: unknown) => writeFileSync(join(dir, name), JSON.stringify(value, null, 1) + "\n");
  json("tokenizer.json", tokenizerJson(trainBpe(sample(seed, shape.documents), shape.vocab - 257, 2), [END]));
  json("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: END,
    pad_token: END,
    bos_token: null,
    add_bos_token: false,
    model_max_length: shape.context,
    chat_template: CHAT_TEMPLATE,
  });
  json("config.json", config(shape));
  await writeSafetensors(join(dir, "model.safetensors"), randomWeights(seed, shape));
}

/** What the tokenizer learns from: documents, and the words of the instruction set. */
function* sample(seed: number, count: number): Generator<string> {
  let n = 0;
  for (const text of documents(seed)) {
    yield text;
    if (++n === count) break;
  }
  for (const row of instructions(seed).train) {
    yield `Question: ${row.messages[0].content}\nAnswer: ${row.messages[1].content}`;
  }
}

function config(shape: Shape): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: shape.vocab,
    hidden_size: shape.dim,
    intermediate_size: shape.ffn,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    max_position_embeddings: shape.context,
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

function randomWeights(seed: number, shape: Shape): ReturnType<typeof floatTensor>[] {
  const { dim: D, layers, heads, kvHeads, ffn: F, vocab } = shape,
    kv = D / heads * kvHeads,
    random = new Random(seed, 3);
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
  return [normal("model.embed_tokens.weight", vocab, D), ...blocks.flat(), ones("model.norm.weight")];
}
