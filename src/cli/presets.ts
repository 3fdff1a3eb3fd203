/**
 * Defaults that go together, and the commands' own lines of help. Whoever sets one of a preset's settings still wins.
 * @module
 */
import type { Config, OptionName } from "./config.ts";
import type { Command } from "./option.ts";

/** Settings that replace defaults together. */
export type Preset = Readonly<Partial<Config>>;

/** `train` with neither --model_name nor --dataset: the model and the instructions inside this package. */
export const EMBEDDED: Preset = {
  model_name: "embedded",
  dataset: "embedded",
  max_seq_length: 256,
  r: 32,
  lora_alpha: 32,
  max_steps: 150,
  per_device_train_batch_size: 8,
  gradient_accumulation_steps: 1,
  learning_rate: 5e-3,
  logging_steps: 10,
  save_gguf: true,
  quantization: ["q8_0"],
};

/** `train` with only one of the two: unsloth-cli.py's default for the other. */
export const UNSLOTH: Preset = { model_name: "unsloth/llama-3-8b", dataset: "yahma/alpaca-cleaned" };

/** One command: what it does, what a bare argument means, examples. */
export interface CommandInfo {
  readonly summary: string;
  readonly positional: OptionName | null;
  readonly examples: readonly string[];
}

/** The verbs, in the order of the help. */
export const COMMANDS: Readonly<Record<Command, CommandInfo>> = {
  train: {
    summary: "Fine-tune a model on a dataset",
    positional: null,
    examples: ["train", "train --model_name org/model --dataset data.jsonl --max_steps 60 --save_gguf"],
  },
  chat: {
    summary: "Talk to a model in the terminal",
    positional: "model_name",
    examples: ["chat", 'chat model/unsloth-tiny.Q8_0.gguf --prompt "Hello"'],
  },
  serve: {
    summary: "Answer over HTTP as OpenAI's API does",
    positional: "model_name",
    examples: ["serve", "serve model/unsloth-tiny.Q8_0.gguf --port 8000"],
  },
  export: {
    summary: "Merge an adapter and write GGUF or safetensors",
    positional: "model_name",
    examples: ["export outputs --quantization q8_0 f16"],
  },
  inspect: {
    summary: "Show what is in a GGUF, a safetensors file, a model folder or an adapter",
    positional: "model_name",
    examples: ["inspect model/unsloth-tiny.Q8_0.gguf"],
  },
  doctor: {
    summary: "Show runtimes, backends and devices, and why each was refused",
    positional: null,
    examples: ["doctor"],
  },
};
