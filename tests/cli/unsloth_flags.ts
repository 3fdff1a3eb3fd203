/**
 * For every flag of unsloth-cli.py: the test that shows that it acts here, or the reason it is refused.
 * docs/unsloth-flags.md is made from this by `deno run -A tools/flags.ts`; a test holds table, tests and page together.
 * @module
 */

/** One flag. `test` is a title in `file` (a folder of tests/ before it). */
export type FlagProof = { readonly file: string; readonly test: string; readonly note?: string } | {
  readonly refused: string;
};

const acts = (test: string, note?: string): FlagProof => ({
  file: "cli/acts_test.ts",
  test,
  ...(note ? { note } : {}),
});
const CHANGES = "changes what is learnt";
const TRAIN = "cli/train_test.ts", HUB = "cli/hub_test.ts", EXPORT = "cli/export_test.ts";
const PUSH = "--model_name org/name and --dataset org/name are downloaded, and the result is pushed";
const GGUF = "train --save_gguf writes each type, compares it, and proposes it for chat and serve";
const ADAPTER = "--r, --lora_alpha, --use_rslora, --use_dora, --target_modules and --layers are in the adapter";
const RAW = "--raw_text_file trains on chunks of --chunk_size tokens that share --stride tokens";

/** In unsloth-cli.py's order. */
export const UNSLOTH_FLAGS: Readonly<Record<string, FlagProof>> = {
  model_name: { file: HUB, test: PUSH },
  max_seq_length: acts(CHANGES, "beyond the model's own positions it is refused: RoPE is not stretched here"),
  dtype: {
    file: TRAIN,
    test: "what would fail at the end is refused before the beginning",
    note: "the backend's own type is taken, any other is refused by name",
  },
  load_in_4bit: acts(
    "--load_in_4bit holds the linears as nf4, exports what was trained, and is refused where nothing can be quantised",
    "a GGUF in 4-bit blocks is read as it lies without it",
  ),
  dataset: { file: HUB, test: PUSH, note: "local alpaca, sharegpt, messages, prompt and text files too" },
  r: acts(ADAPTER),
  lora_alpha: acts(ADAPTER),
  lora_dropout: acts(CHANGES),
  bias: acts("--bias needs a model that has biases"),
  use_gradient_checkpointing: acts(
    "--use_gradient_checkpointing changes the memory and not the result",
    "False switches it off",
  ),
  random_state: acts(CHANGES),
  use_rslora: acts(ADAPTER),
  loftq_config: { refused: "LoftQ is `--init_lora_weights loftq` with `--load_in_4bit` here" },
  use_dora: acts(ADAPTER),
  per_device_train_batch_size: acts(CHANGES),
  per_device_eval_batch_size: acts(
    "--eval_split with --per_device_eval_batch_size evaluates held-out rows",
    "refused without held-out rows",
  ),
  gradient_accumulation_steps: acts(CHANGES),
  warmup_steps: acts(CHANGES),
  max_steps: acts(CHANGES),
  learning_rate: acts(CHANGES),
  optim: {
    file: "cli/refuse_test.ts",
    test: "train %s is refused by name",
    note: "a name this build lacks is refused",
  },
  weight_decay: acts(CHANGES),
  lr_scheduler_type: acts(CHANGES),
  seed: acts(CHANGES),
  packing: acts(CHANGES),
  report_to: {
    file: TRAIN,
    test: "train writes the adapter, the resolved config, metrics and curve, and logs in Unsloth's shape",
    note: "tensorboard and none; any other is refused, with metrics.jsonl as the way out",
  },
  logging_steps: acts("--logging_steps sets how many lines there are"),
  output_dir: {
    file: TRAIN,
    test: "train writes the adapter, the resolved config, metrics and curve, and logs in Unsloth's shape",
  },
  save_model: { file: HUB, test: PUSH, note: "the adapter is always saved in output_dir" },
  save_method: {
    file: EXPORT,
    test: "export merges an adapter into a Hugging Face folder, and what training changed is changed in it",
    note: "merged_16bit, merged_4bit (NF4) and lora, also lora_gguf and mlx",
  },
  save_gguf: { file: EXPORT, test: GGUF, note: "acts without --save_model too" },
  save_path: { file: EXPORT, test: GGUF },
  quantization: { file: EXPORT, test: GGUF, note: "checked before training" },
  push_model: { file: HUB, test: PUSH },
  push_gguf: { file: HUB, test: PUSH },
  hub_path: { file: HUB, test: PUSH },
  hub_token: { file: HUB, test: PUSH, note: "or HF_TOKEN; never printed, never saved" },
  raw_text_file: acts(RAW),
  chunk_size: acts(RAW),
  stride: acts(RAW),
};

/** docs/unsloth-flags.md. */
export function unslothFlagsPage(): string {
  const rows = Object.entries(UNSLOTH_FLAGS).map(([flag, p]) => {
    if ("refused" in p) return `| \`--${flag}\` | refused by name: ${p.refused} | \`tests/cli/refuse_test.ts\` |`;
    return `| \`--${flag}\` | acts${p.note ? `; ${p.note}` : ""} | \`tests/${p.file}\`: ${p.test} |`;
  });
  return [
    "# unsloth-cli.py's flags",
    "",
    "Every flag has the same name and default. Made from `tests/cli/unsloth_flags.ts` by `deno run -A tools/flags.ts`; a",
    "test holds the two together and looks for every test named here.",
    "",
    "| flag | here | shown by |",
    "| --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}
