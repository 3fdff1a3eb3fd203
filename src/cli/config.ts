/**
 * The one table of settings: the only source of flags, help, defaults, the config file's format and docs/flags.md.
 * Names and defaults of unsloth-cli.py are kept (marked `unsloth`); what it lacks is added under transformers' names.
 * Without `on` a setting is train's alone. Whether it can act in a given run is refuse.ts's business.
 * @module
 */
import type { Command, Option, ValueOf } from "./option.ts";

type Group = Record<string, Option>;
const ALL: readonly Command[] = ["train", "chat", "export", "serve"];
/** All linears of a block, by the names most families have: unsloth-cli.py's targets. */
export const LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

// deno-fmt-ignore
const MODEL = {
  model_name: { kind: "text", default: null, unsloth: true, on: [...ALL, "inspect"],
    help: "A Hub id, a folder or a .gguf file. train: unsloth/llama-3-8b if only --dataset is given, the embedded " +
      "model if neither is; elsewhere: what was trained last." },
  adapter: { kind: "text", default: null, on: ["chat", "export", "serve"],
    help: "Folder of a PEFT adapter to put on the model." },
  revision: { kind: "text", default: "main", on: ALL, help: "Branch, tag or commit of a Hub model." },
  offline: { kind: "flag", default: false, on: ALL, help: "Never touch the network: Hub ids must be in the cache." },
  max_seq_length: { kind: "int", default: 2048, range: [8, 1 << 20], unsloth: true, on: ALL,
    help: "Longest sequence in tokens; longer rows are cut at the right and counted." },
  dtype: { kind: "text", default: null, choices: ["float32", "bfloat16", "float16"], unsloth: true,
    help: "Type of the activations; None: the backend's own (float32 on wasm)." },
  load_in_4bit: { kind: "flag", default: false, unsloth: true,
    help: "Quantise the base's linears to NF4 while loading (QLoRA). A GGUF in 4-bit blocks needs no flag." },
  load_in_fp8: { kind: "flag", default: false,
    help: "Round the base's linears to 8 bits (e4m3, a scale for 128 x 128) and multiply in 8 bits: NVIDIA Hopper GPUs." },
} as const satisfies Group;

// deno-fmt-ignore
const DATA = {
  dataset: { kind: "text", default: null, unsloth: true,
    help: "A .json, .jsonl, .csv, .parquet, .txt or .md file, a folder, or a Hub id (org/name, or org/name/folder " +
      "for a part); yahma/alpaca-cleaned if only --model_name is given." },
  columns: { kind: "list", default: [], help: "Renames columns: instruction=question output=answer." },
  chat_template: { kind: "text", default: null, on: ["train", "chat", "serve"],
    help: "alpaca (the published prompt), chatml, or a Jinja file. None: the model's own template, alpaca where it has none." },
  train_on_inputs: { kind: "flag", default: false,
    help: "Train on the prompt too, as unsloth-cli.py does. Off: the loss is on the answers only." },
  train_on_responses_only: { kind: "flag", default: true, help: "The opposite of --train_on_inputs." },
  response_turns: { kind: "text", default: "all", choices: ["all", "last"],
    help: "Which assistant turns of a conversation are trained." },
  preference: { kind: "text", default: "refuse", choices: ["refuse", "chosen"],
    help: "Records with a chosen and a rejected answer, or a label: refuse them, or fine-tune on the chosen ones alone " +
      "(no DPO)." },
  packing: { kind: "flag", default: false, unsloth: true,
    help: "Lay rows end to end up to max_seq_length; positions restart and attention does not cross." },
  group_by_length: { kind: "flag", default: false, help: "Batches of rows of like length." },
  max_samples: { kind: "int", default: null, range: [1, 1e12], help: "Use only so many records; None: all." },
  skip_bad_rows: { kind: "flag", default: false, help: "Count rows that do not parse instead of refusing the file." },
  raw_text_file: { kind: "text", default: null, unsloth: true, help: "Train on this file as plain text, in chunks." },
  chunk_size: { kind: "int", default: 2048, range: [8, 1 << 20], unsloth: true,
    help: "Tokens a chunk of --raw_text_file." },
  stride: { kind: "int", default: 512, range: [0, 1 << 20], unsloth: true,
    help: "Tokens two neighbouring chunks share." },
} as const satisfies Group;

// deno-fmt-ignore
const LORA = {
  r: { kind: "int", default: 16, range: [1, 1024], unsloth: true, help: "Rank." },
  lora_alpha: { kind: "number", default: 16, range: [0, 1e6], unsloth: true, help: "The scale is alpha / r." },
  lora_dropout: { kind: "number", default: 0, range: [0, 0.99], unsloth: true,
    help: "Dropout before A; 0 is the fast path." },
  bias: { kind: "text", default: "none", choices: ["none", "all", "lora_only"], unsloth: true,
    help: "Which biases are trained." },
  target_modules: { kind: "list", default: LINEARS, patterns: true,
    choices: [...LINEARS, "qkv_proj", "gate_up_proj", "embed_tokens", "lm_head", "all-linear"],
    help: "Linears that get an adapter; all-linear: all but the output head; a regular expression: modules whose whole " +
      "name it matches, as in peft." },
  layers: { kind: "text", default: null, help: "Layers that get adapters, as 0-3,8 or last:4; None: all." },
  use_rslora: { kind: "flag", default: false, unsloth: true, help: "The scale is alpha / sqrt(r)." },
  use_dora: { kind: "flag", default: false, unsloth: true, help: "Weight-decomposed LoRA." },
  init_lora_weights: { kind: "text", default: "default", choices: ["default", "gaussian", "pissa", "loftq"],
    help: "How adapters start: A random and B zero, or from singular vectors of the weights (pissa) or of what 4 bits " +
      "lost (loftq)." },
  loftq_config: { kind: "text", default: null, unsloth: true, help: "LoftQ initialisation." },
  full_finetuning: { kind: "flag", default: false, help: "Train every weight in f32 instead of adapters." },
  loraplus_lr_ratio: { kind: "number", default: null, range: [0.01, 1e3],
    help: "Learning rate of B over that of A (LoRA+); None: 1." },
  adaptive_rank: { kind: "flag", default: false, help: "Lower the rank of layers that learn little." },
  adaptive_rank_target: { kind: "number", default: null, range: [1, 1024],
    help: "Average rank --adaptive_rank comes down to; None: half of --r." },
  adaptive_rank_interval: { kind: "int", default: null, range: [1, 1e6],
    help: "Steps between two decisions of --adaptive_rank; None: a twentieth of the run." },
  random_state: { kind: "int", default: 3407, range: [0, 2 ** 53 - 1], unsloth: true,
    help: "Seed of the adapters' start." },
  use_gradient_checkpointing: { kind: "text", default: "unsloth", unsloth: true, also: ["gradient_checkpointing"],
    choices: ["unsloth", "true", "false", "full", "none", "selective", "offload"],
    help: "true or full: keep only the blocks' inputs and recompute; offload: those wait in host memory; false or none: " +
      "keep all; selective: keep what recomputes dearest, as far as memory goes; unsloth: selective within half of the " +
      "memory, offload where the inputs alone are too much." },
} as const satisfies Group;

// deno-fmt-ignore
const TRAINING = {
  per_device_train_batch_size: { kind: "int", default: 2, range: [1, 65536], unsloth: true,
    help: "Rows a micro-batch." },
  gradient_accumulation_steps: { kind: "int", default: 4, range: [1, 65536], unsloth: true,
    help: "Micro-batches a step, weighted by trained tokens over all of them." },
  max_steps: { kind: "int", default: 400, range: [1, 1e9], unsloth: true, help: "Optimiser steps." },
  num_train_epochs: { kind: "number", default: null, range: [0.001, 1e6], also: ["epochs"],
    help: "Passes over the data, instead of --max_steps." },
  learning_rate: { kind: "number", default: 2e-4, range: [0, 10], unsloth: true, help: "Greatest learning rate." },
  warmup_steps: { kind: "int", default: 5, range: [0, 1e9], unsloth: true, help: "Steps of rising learning rate." },
  lr_scheduler_type: { kind: "text", default: "linear", unsloth: true, help: "Shape of the learning rate.",
    choices: ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
      "inverse_sqrt", "warmup_stable_decay"] },
  optim: { kind: "text", default: "adamw_8bit", unsloth: true,
    help: "adamw_8bit, adamw_torch, sgd, lion_32bit or adafactor." },
  weight_decay: { kind: "number", default: 0.01, range: [0, 10], unsloth: true, help: "Decoupled weight decay; norms and biases are spared." },
  adam_beta1: { kind: "number", default: 0.9, range: [0, 0.9999999], help: "Decay of AdamW's first moment." },
  adam_beta2: { kind: "number", default: 0.999, range: [0, 0.9999999], help: "Decay of AdamW's second moment." },
  adam_epsilon: { kind: "number", default: 1e-8, range: [1e-30, 1], help: "AdamW's epsilon." },
  max_grad_norm: { kind: "number", default: 1, range: [0, 1e9], help: "Clip the global gradient norm; 0: off." },
  label_smoothing_factor: { kind: "number", default: 0, range: [0, 0.99], help: "Label smoothing." },
  neftune_noise_alpha: { kind: "number", default: null, range: [0, 1e3],
    help: "Noise on the embeddings (NEFTune); None: none." },
  seed: { kind: "int", default: 3407, range: [0, 2 ** 53 - 1], unsloth: true, on: ["train", "chat"],
    help: "Seed of the data order and dropout (train), of the sampling (chat)." },
} as const satisfies Group;

// deno-fmt-ignore
const EVALUATION = {
  eval_file: { kind: "text", default: null, help: "Held-out rows in a file of their own." },
  eval_split: { kind: "number", default: 0, range: [0, 1e9],
    help: "Held-out part of the dataset: a share under 1, or a number of rows." },
  eval_steps: { kind: "int", default: 0, range: [0, 1e9],
    help: "Evaluate every so many steps; 0: before the first step and after the last." },
  per_device_eval_batch_size: { kind: "int", default: 4, range: [1, 65536], unsloth: true,
    help: "Rows a batch of the evaluation." },
  early_stopping_patience: { kind: "int", default: 0, range: [0, 1e9],
    help: "Stop after so many evaluations without a better loss and keep the best adapter; 0: off." },
  samples: { kind: "int", default: 2, range: [0, 20], help: "Held-out prompts answered before and after training." },
} as const satisfies Group;

// deno-fmt-ignore
const REPORT = {
  report_to: { kind: "text", default: "tensorboard", unsloth: true,
    choices: ["azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "mlflow", "neptune",
      "tensorboard", "wandb", "all", "none"],
    help: "tensorboard writes event files under output_dir/runs. metrics.jsonl is always written." },
  logging_steps: { kind: "int", default: 1, range: [1, 1e9], unsloth: true, help: "Steps a log line." },
} as const satisfies Group;

// deno-fmt-ignore
const SAVE = {
  output_dir: { kind: "text", default: "outputs", unsloth: true,
    help: "Adapter, checkpoints, metrics, loss curve and resolved config." },
  save_steps: { kind: "int", default: 0, range: [0, 1e9],
    help: "Checkpoint every so many steps; 0: only when interrupted." },
  save_total_limit: { kind: "int", default: 2, range: [1, 1e6], help: "Checkpoints kept; older ones are removed." },
  resume: { kind: "flag", default: false, also: ["resume_from_checkpoint"],
    help: "Go on from the newest checkpoint in output_dir, to the bit." },
  save_model: { kind: "flag", default: false, unsloth: true,
    help: "Also write the model to save_path, by save_method. The adapter is always saved in output_dir." },
  save_method: { kind: "text", default: "merged_16bit", unsloth: true, on: ["train", "export"],
    choices: ["merged_16bit", "merged_4bit", "lora", "lora_gguf", "mlx"],
    help: "What --save_model writes. export: write this instead of GGUF." },
  save_gguf: { kind: "flag", default: false, unsloth: true,
    help: "Write the merged model as GGUF to save_path and compare it with the trained one." },
  save_path: { kind: "text", default: "model", unsloth: true, on: ["train", "export"],
    help: "Folder of the saved model." },
  quantization: { kind: "list", default: ["q8_0"], unsloth: true, on: ["train", "export"],
    help: "One or more GGUF types, as q8_0 f16." },
  imatrix: { kind: "text", default: null, on: ["train", "export"],
    help: "Importance matrix for quantising: an imatrix .gguf, or a text file to make one from." },
} as const satisfies Group;

// deno-fmt-ignore
const HUB = {
  push_model: { kind: "flag", default: false, unsloth: true, help: "Upload what --save_model writes." },
  push_gguf: { kind: "flag", default: false, unsloth: true, help: "Upload what --save_gguf writes." },
  hub_path: { kind: "text", default: "hf/model", unsloth: true, help: "Repository to push to." },
  hub_token: { kind: "text", default: null, unsloth: true, secret: true, on: ALL,
    help: "Hub token; None: HF_TOKEN of the environment." },
} as const satisfies Group;

// deno-fmt-ignore
const ANSWER = {
  prompt: { kind: "text", default: null, on: ["chat"], help: "Ask once, print the answer and leave." },
  system: { kind: "text", default: null, on: ["chat"], help: "System message." },
  max_tokens: { kind: "int", default: 512, range: [1, 1 << 20], on: ["chat"], help: "Longest answer." },
  temperature: { kind: "number", default: 0, range: [0, 10], on: ["chat"], help: "0: always the likeliest token." },
  top_k: { kind: "int", default: 0, range: [0, 1e6], on: ["chat"], help: "Sample among so many; 0: off." },
  top_p: { kind: "number", default: 1, range: [0, 1], on: ["chat"], help: "Nucleus sampling; 1: off." },
  min_p: { kind: "number", default: 0, range: [0, 1], on: ["chat"],
    help: "Drop tokens under this share of the likeliest; 0: off." },
  repetition_penalty: { kind: "number", default: 1, range: [0.01, 10], on: ["chat"], help: "1: off." },
} as const satisfies Group;

// deno-fmt-ignore
const SERVER = {
  host: { kind: "text", default: "127.0.0.1", on: ["serve"], help: "Address to listen on." },
  port: { kind: "int", default: 8000, range: [0, 65535], on: ["serve"], help: "0: any free one." },
  parallel: { kind: "int", default: 4, range: [1, 256], on: ["serve"], help: "Requests answered at once." },
  queue: { kind: "int", default: 64, range: [0, 1e6], on: ["serve"], help: "Requests that may wait." },
  api_key: { kind: "text", default: null, on: ["serve"], secret: true, help: "Key that requests must carry." },
} as const satisfies Group;

// deno-fmt-ignore
const RUN = {
  backend: { kind: "text", default: "auto", choices: ["auto", "cuda", "metal", "wasm"], on: [...ALL, "doctor"],
    help: "auto takes the first of cuda, metal, wasm that works." },
  device: { kind: "int", default: null, range: [0, 255], on: [...ALL, "doctor"],
    help: "Which of the GPUs, from 0; None: the first." },
  num_threads: { kind: "int", default: null, range: [1, 1024], on: [...ALL, "doctor"],
    help: "Threads of the wasm backend; None: one a core." },
  memory_limit: { kind: "number", default: null, range: [0.01, 1e6], on: ["train", "export", "doctor"],
    help: "Most device memory to use, in GB (10^9 bytes); None: all there is." },
  metal: { kind: "flag", default: false, on: ["doctor"],
    help: "Compare every Metal kernel with the CPU, measure them, and print one report to send." },
  config: { kind: "text", default: null, on: ALL, help: "YAML or JSON file of these settings; the command line wins." },
  dry_run: { kind: "flag", default: false, help: "Stop before step 1 and print the resolved config." },
} as const satisfies Group;

/** The settings by heading, in the order of the help. */
export const GROUPS: Readonly<Record<string, Group>> = {
  Model: MODEL,
  Data: DATA,
  LoRA: LORA,
  Training: TRAINING,
  Evaluation: EVALUATION,
  Report: REPORT,
  Save: SAVE,
  Hub: HUB,
  Answer: ANSWER,
  Server: SERVER,
  Run: RUN,
};

const TABLE = {
  ...MODEL,
  ...DATA,
  ...LORA,
  ...TRAINING,
  ...EVALUATION,
  ...REPORT,
  ...SAVE,
  ...HUB,
  ...ANSWER,
  ...SERVER,
  ...RUN,
};

/** Name of a setting. */
export type OptionName = keyof typeof TABLE;

/** All settings with their values. */
export type Config = { -readonly [K in OptionName]: ValueOf<(typeof TABLE)[K]> };

/** Every setting of every command. */
export const OPTIONS: Readonly<Record<OptionName, Option>> = TABLE;

/** The settings one command takes, in the table's order. */
export function optionsOf(command: Command): OptionName[] {
  return (Object.keys(OPTIONS) as OptionName[]).filter((n) => (OPTIONS[n].on ?? ["train"]).includes(command));
}

/** The default of every setting. */
export function defaults(): Config {
  return Object.fromEntries(Object.entries(OPTIONS).map(([name, o]) => [name, o.default])) as unknown as Config;
}
