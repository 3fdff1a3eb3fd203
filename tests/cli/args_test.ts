import { expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { parseArgs } from "../../src/cli/args.ts";
import { defaults, type OptionName, OPTIONS } from "../../src/cli/config.ts";
import { commandHelp, flagsMarkdown } from "../../src/cli/help.ts";
import { distance } from "../../src/cli/nearest.ts";
import { COMMANDS } from "../../src/cli/presets.ts";
import { resolve } from "../../src/cli/settings.ts";
import { UNSLOTH_FLAGS, unslothFlagsPage } from "./unsloth_flags.ts";

/** unsloth-cli.py's argparse table: name and default, as its help prints them. */
const UNSLOTH_CLI: Record<string, unknown> = {
  model_name: "unsloth/llama-3-8b",
  max_seq_length: 2048,
  dtype: null,
  load_in_4bit: false,
  dataset: "yahma/alpaca-cleaned",
  r: 16,
  lora_alpha: 16,
  lora_dropout: 0,
  bias: "none",
  use_gradient_checkpointing: "unsloth",
  random_state: 3407,
  use_rslora: false,
  loftq_config: null,
  use_dora: false,
  per_device_train_batch_size: 2,
  per_device_eval_batch_size: 4,
  gradient_accumulation_steps: 4,
  warmup_steps: 5,
  max_steps: 400,
  learning_rate: 2e-4,
  optim: "adamw_8bit",
  weight_decay: 0.01,
  lr_scheduler_type: "linear",
  seed: 3407,
  packing: false,
  report_to: "tensorboard",
  logging_steps: 1,
  output_dir: "outputs",
  save_model: false,
  save_method: "merged_16bit",
  save_gguf: false,
  save_path: "model",
  quantization: ["q8_0"],
  push_model: false,
  push_gguf: false,
  hub_path: "hf/model",
  hub_token: null,
  raw_text_file: null,
  chunk_size: 2048,
  stride: 512,
};

const train = (...argv: string[]) => resolve("train", parseArgs("train", argv));

test("every flag of unsloth-cli.py has its name and default once a model or a dataset is named", () => {
  const byModel = train("--model_name", "m").config, byData = train("--dataset", "d").config;
  for (const [name, value] of Object.entries(UNSLOTH_CLI)) {
    const config = name === "model_name" ? byData : byModel;
    expect(config[name as OptionName], name).toEqual(value);
    expect(OPTIONS[name as OptionName].unsloth, name).toBe(true);
  }
  const marked = Object.entries(OPTIONS).filter(([, o]) => o.unsloth).map(([n]) => n);
  expect(marked.filter((n) => !(n in UNSLOTH_CLI))).toEqual([]);
});

test("train with neither a model nor a dataset takes the embedded preset, and flags still win over it", () => {
  const s = train("--max_steps", "3");
  expect(s.preset).toBe("embedded");
  expect(s.config).toMatchObject({ model_name: "embedded", dataset: "embedded", max_steps: 3, save_gguf: true });
  expect(train("--dataset", "d").preset).toBe("unsloth");
  expect(train("--raw_text_file", "t").config.model_name).toBe("unsloth/llama-3-8b");
  expect(train("--model_name", "m", "--dataset", "d").preset).toBe(null);
});

test("flags are read with =, with dashes, by a unique beginning, and the last one counts", () => {
  expect(train("--model_name=m", "--max-steps=7").config.max_steps).toBe(7);
  expect(train("--model", "m", "--learn", "1e-3").config).toMatchObject({ model_name: "m", learning_rate: 1e-3 });
  expect(train("--max_steps", "1", "--max_steps", "2").config.max_steps).toBe(2);
  expect(train("--epochs", "2.5").config.num_train_epochs).toBe(2.5);
  expect(train("--lora_alpha", "-0").config.lora_alpha).toBe(-0);
});

test("yes-or-no flags take no value, true or false, and a no_ form", () => {
  expect(train("--packing").config.packing).toBe(true);
  expect(train("--packing", "false").config.packing).toBe(false);
  expect(train("--packing=True").config.packing).toBe(true);
  expect(train("--no_save_gguf").config.save_gguf).toBe(false);
  expect(train("--no-save-gguf").config.save_gguf).toBe(false);
  expect(() => train("--no_max_steps")).toThrow("max_steps takes a value");
  expect(() => train("--gradient_checkpointing")).toThrow("a value must follow, one of unsloth, true, false");
  expect(() => train("--packing", "maybe")).toThrow("and --packing nothing but true or false");
  expect(() => train("--resume_from_checkpoint", "outputs/checkpoint-10")).toThrow(
    "the newest checkpoint in --output_dir",
  );
});

test("a list takes values by spaces and by commas", () => {
  expect(train("--quantization", "q8_0", "f16", "--r", "8").config.quantization).toEqual(["q8_0", "f16"]);
  expect(train("--target_modules", "q_proj,V_PROJ").config.target_modules).toEqual(["q_proj", "v_proj"]);
  expect(() => train("--target_modules", "w_proj")).toThrow("it takes q_proj, k_proj");
  expect(() => train("--quantization", ",")).toThrow("Cannot set quantization to []: it takes one value or more");
});

test("the string None means none only where none is a value, and False switches checkpointing off", () => {
  expect(train("--dtype", "None").config.dtype).toBe(null);
  expect(() => train("--max_steps", "None")).toThrow("max_steps");
  expect(train("--use_gradient_checkpointing", "False").config.use_gradient_checkpointing).toBe("false");
});

test("train_on_inputs and train_on_responses_only are one setting", () => {
  expect(train().config).toMatchObject({ train_on_inputs: false, train_on_responses_only: true });
  expect(train("--train_on_inputs").config.train_on_responses_only).toBe(false);
  expect(train("--no_train_on_responses_only").config.train_on_inputs).toBe(true);
});

test("an unknown flag names the nearest, an ambiguous one its candidates, a strange one its command", () => {
  expect(() => train("--learning_rat")).toThrow("must follow"); // a unique beginning
  expect(() => train("--lerning_rate", "1")).toThrow("Unknown flag --lerning_rate: did you mean --learning_rate?");
  expect(() => train("--lora", "1")).toThrow("it may be --lora_alpha or --lora_dropout");
  expect(() => train("--port", "1")).toThrow("Cannot use --port with train: it belongs to serve");
  expect(() => train("--zzzzzz")).toThrow("see train --help");
  expect(() => train("stray")).toThrow("train takes no bare argument");
});

test("values out of kind or range are refused with what the flag takes", () => {
  expect(() => train("--max_steps", "1.5")).toThrow("Cannot set max_steps to 1.5: it takes a whole number");
  expect(() => train("--r", "0")).toThrow("it takes 1 to 1024");
  expect(() => train("--max_steps", "ten")).toThrow('"ten"');
  expect(() => train("--report_to", "wand")).toThrow("tensorboard, wandb");
  expect(() => train("--max_steps")).toThrow("a value must follow");
});

test("one dash is not enough, and betas of 1 would divide by zero", () => {
  expect(() => parseArgs("train", ["-r", "3"])).toThrow("Unknown flag -r: flags have two dashes, as --r");
  expect(() => parseArgs("train", ["--adam_beta1", "1"])).toThrow("it takes 0 to 0.9999999");
  expect(() => parseArgs("train", ["--adam_epsilon", "0"])).toThrow("it takes 1e-30 to 1");
});

test("a bare argument is the model where a command takes one", () => {
  const s = resolve("serve", parseArgs("serve", ["m.gguf", "--port", "0"]));
  expect(s.config).toMatchObject({ model_name: "m.gguf", port: 0 });
  expect(() => parseArgs("serve", ["a", "b"])).toThrow("serve takes one bare argument");
});

test("distance counts edits and swaps", () => {
  expect([distance("", "ab"), distance("abc", "acb"), distance("kitten", "sitting")]).toEqual([2, 1, 3]);
});

test("help lists exactly the command's flags, and docs/flags.md is what the table says", () => {
  for (const command of Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]) {
    const help = commandHelp("unsloth", command, 100);
    for (const name of Object.keys(OPTIONS)) {
      const mine = ((OPTIONS[name as OptionName].on ?? ["train"]) as string[]).includes(command);
      expect(help.includes(`  --${name}\n`) || help.includes(`  --${name} `), `${command} ${name}`).toBe(mine);
    }
    for (const line of help.split("\n")) expect(line.length, line).toBeLessThanOrEqual(110);
  }
  expect(readFileSync(new URL("../../docs/flags.md", import.meta.url), "utf8")).toBe(flagsMarkdown());
});

test("every default lies within its own kind, range and choices", () => {
  for (const [name, value] of Object.entries(defaults())) {
    const o = OPTIONS[name as OptionName];
    if (value === null) continue;
    if (o.range) expect(value as number).toBeGreaterThanOrEqual(o.range[0]);
    if (o.choices && o.kind === "text") expect(o.choices).toContain(value);
  }
});

test("docs/unsloth-flags.md names a test that exists for every flag of unsloth-cli.py, or that it is refused", () => {
  const marked = Object.entries(OPTIONS).filter(([, o]) => o.unsloth).map(([n]) => n);
  expect(Object.keys(UNSLOTH_FLAGS).sort()).toEqual(marked.sort());
  const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
  for (const [flag, proof] of Object.entries(UNSLOTH_FLAGS)) {
    const text = read("refused" in proof ? "cli/refuse_test.ts" : proof.file);
    expect(text, flag).toContain("refused" in proof ? `--${flag}` : proof.test);
    if (!("refused" in proof) && proof.test.startsWith("changes")) expect(text, flag).toContain(`["--${flag}"`);
  }
  expect(readFileSync(new URL("../../docs/unsloth-flags.md", import.meta.url), "utf8")).toBe(unslothFlagsPage());
});
