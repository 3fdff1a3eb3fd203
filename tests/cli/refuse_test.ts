import process from "node:process";
import { expect, test } from "vitest";
import { parseArgs } from "../../src/cli/args.ts";
import { refuse } from "../../src/cli/refuse.ts";
import { resolve } from "../../src/cli/settings.ts";

const check = (...argv: string[]) => refuse(resolve("train", parseArgs("train", ["--model_name", "m", ...argv])));

test("settings that act together are taken", () => {
  for (
    const argv of [
      [],
      ["--report_to", "none"],
      [
        "--eval_split",
        "0.1",
        "--eval_steps",
        "5",
        "--early_stopping_patience",
        "2",
        "--per_device_eval_batch_size",
        "1",
      ],
      ["--save_gguf", "--quantization", "q8_0", "--save_path", "x"],
      ["--save_model", "--save_method", "lora", "--push_model", "--hub_path", "me/it", "--hub_token", "hf_x"],
      ["--raw_text_file", "t.txt", "--chunk_size", "64", "--stride", "8"],
      ["--epochs", "2"],
    ]
  ) expect(() => check(...argv), argv.join(" ")).not.toThrow();
});

/** Each flag that cannot act in the run, and words of the way out. */
const REFUSED: [argv: string, says: RegExp][] = [
  ["--report_to wandb", /Cannot report to wandb.*metrics\.jsonl/],
  ["--report_to all", /Cannot report to all/],
  ["--optim adamw_9bit", /--optim adamw_9bit: this build has adamw_torch/],
  ["--load_in_4bit --full_finetuning", /--load_in_4bit: it acts only with adapters/],
  ["--load_in_fp8 --full_finetuning", /--load_in_fp8: it acts only with adapters/],
  ["--load_in_fp8 --load_in_4bit", /--load_in_4bit with --load_in_fp8/],
  ["--load_in_fp8 --use_dora", /--load_in_fp8 with --use_dora/],
  ["--load_in_fp8 --init_lora_weights pissa", /--load_in_fp8 with --init_lora_weights pissa/],
  ["--init_lora_weights loftq", /--init_lora_weights loftq.*--load_in_4bit/],
  ["--init_lora_weights pissa --adaptive_rank --optim adamw_torch", /--adaptive_rank with --init_lora_weights pissa/],
  ["--full_finetuning --r 8", /--r: it acts only with adapters/],
  ["--loftq_config x", /--loftq_config/],
  ["--adaptive_rank --adaptive_rank_target 16", /ranks of 16 cannot come down to 16/],
  ["--adaptive_rank --r 1", /ranks of 1 cannot come down to 1; raise --r/],
  ["--adaptive_rank_target 4", /--adaptive_rank_target: it acts only with --adaptive_rank/],
  ["--adaptive_rank_interval 4", /--adaptive_rank_interval: it acts only with --adaptive_rank/],
  ["--max_steps 5 --num_train_epochs 1", /--max_steps with --num_train_epochs/],
  ["--dataset d --raw_text_file t", /--dataset with --raw_text_file/],
  ["--eval_file f --eval_split 3", /--eval_file with --eval_split/],
  ["--train_on_inputs --train_on_responses_only", /opposite/],
  ["--response_turns last --train_on_inputs", /--response_turns: it acts only with --train_on_responses_only/],
  ["--chunk_size 8", /--chunk_size: it acts only with --raw_text_file/],
  ["--stride 8", /--stride: it acts only with --raw_text_file/],
  ["--raw_text_file t --columns a=b", /--columns: it acts only with --dataset/],
  ["--per_device_eval_batch_size 2", /--per_device_eval_batch_size: it acts only with --eval_file or --eval_split/],
  ["--eval_steps 2", /--eval_steps: it acts only/],
  ["--early_stopping_patience 2", /--early_stopping_patience/],
  ["--eval_split 2 --early_stopping_patience 2", /only with --eval_steps/],
  ["--save_total_limit 3", /--save_total_limit: it acts only with --save_steps/],
  ["--save_method lora", /--save_method: it acts only with --save_model/],
  ["--save_path p", /--save_path: it acts only with/],
  ["--quantization f16", /--quantization: it acts only with --save_gguf/],
  ["--imatrix x", /--imatrix: it acts only with --save_gguf/],
  ["--push_model --hub_path a/b", /--push_model: it acts only with --save_model/],
  ["--push_gguf --hub_path a/b", /--push_gguf: it acts only with --save_gguf/],
  ["--save_gguf --push_gguf", /name the repository with --hub_path/],
  ["--hub_path a/b", /--hub_path: it acts only with/],
  ["--save_gguf --push_gguf --hub_path me --hub_token x", /--hub_path me: it looks like org\/name/],
  ["--save_gguf --push_gguf --hub_path me/it --hub_token x --offline", /Cannot push with --offline/],
  ["--lora_alpha 0", /--lora_alpha 0: the adapters would never act/],
  ["--full_finetuning --save_model --save_method mlx", /--save_method mlx with --full_finetuning/],
  ["--use_dora --save_model --save_method lora_gguf", /lora_gguf with --use_dora/],
  ["--bias all --save_model --save_method mlx", /--save_method mlx with --bias all/],
  ["--optim sgd --adam_beta1 0.8", /--adam_beta1: it acts only with --optim adamw/],
  ["--optim adafactor --adam_beta2 0.8", /--adam_beta2: it acts only with/],
  ["--optim lion_32bit --adam_epsilon 1e-6", /--adam_epsilon: it acts only with --optim adamw/],
  ["--lr_scheduler_type constant --warmup_steps 3", /--warmup_steps: it acts only with a schedule that has a warm-up/],
  ["--packing --group_by_length", /--group_by_length/],
  ["--raw_text_file t --chunk_size 8 --stride 8", /less than --chunk_size 8/],
  ["--backend wasm --device 1", /--device: it acts only with --backend cuda, metal or auto/],
  ["--backend cuda --num_threads 2", /--num_threads: it acts only with --backend wasm/],
];

test.each(REFUSED)("train %s is refused by name", (argv, says) => {
  expect(() => check(...argv.split(" "))).toThrow(says);
});

test("a push needs a token before the run, not after it", () => {
  const push = ["--save_gguf", "--push_gguf", "--hub_path", "me/it"];
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN } = process.env;
  try {
    delete process.env.HF_TOKEN;
    delete process.env.HUGGING_FACE_HUB_TOKEN;
    expect(() => check(...push)).toThrow("a token is needed (--hub_token or HF_TOKEN)");
    process.env.HF_TOKEN = "hf_x";
    expect(() => check(...push)).not.toThrow();
  } finally {
    delete process.env.HF_TOKEN;
    Object.assign(process.env, HF_TOKEN && { HF_TOKEN }, HUGGING_FACE_HUB_TOKEN && { HUGGING_FACE_HUB_TOKEN });
  }
});

test("what acts with an optimiser acts with its paged name", () => {
  expect(() => check("--optim", "paged_adamw_8bit", "--adam_beta1", "0.8", "--adam_epsilon", "1e-6")).not.toThrow();
  expect(() => check("--optim", "paged_lion_32bit", "--adam_epsilon", "1e-6")).toThrow("--adam_epsilon");
});

test("all reasons are told at once", () => {
  expect(() => check("--stride", "8", "--report_to", "wandb")).toThrow(/wandb[^]*stride/);
});
