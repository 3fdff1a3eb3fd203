/** Each flag of unsloth-cli.py that trains does something: what it changes is looked at, one flag at a time. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openSafetensorsFolder } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { readPeft } from "../../src/formats/peft.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";
import { cli, type Outcome } from "./cli.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>, base: Uint8Array, runs = 0;
const at = (...parts: string[]) => join(tiny.dir, ...parts);

/** Three steps with these flags; later flags replace earlier ones, as on any command line. */
async function train(...more: string[]): Promise<{ dir: string; adapter: Uint8Array; run: Outcome }> {
  const dir = at(`run${runs++}`);
  const run = await cli([
    ...["train", "--model_name", tiny.model, "--dataset", at("data.jsonl"), "--output_dir", dir, "--max_steps", "3"],
    ...["--warmup_steps", "1", "--learning_rate", "1e-2", "--r", "4", "--samples", "0", "--report_to", "none", ...more],
  ]);
  expect(run.status, run.notes.join("\n")).toBe(0);
  return { dir, adapter: readFileSync(join(dir, "adapter_model.safetensors")), run };
}

const same = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((x, i) => x === b[i]);
beforeAll(async () => {
  tiny = await tinyModel();
  writeFileSync(at("data.jsonl"), instructions(1).train.slice(0, 24).map((r) => JSON.stringify(r)).join("\n"));
  writeFileSync(at("text.txt"), "The fox lives in the forest. The owl can see in the dark. ".repeat(40));
  base = (await train()).adapter;
});
afterAll(() => tiny.remove());

test("the same flags give the same adapter", async () => {
  expect(same((await train()).adapter, base)).toBe(true);
  expect(same((await train("--logging_steps", "3", "--save_steps", "2")).adapter, base)).toBe(true);
});

test.each([
  ["--lora_alpha", "32"],
  ["--lora_dropout", "0.3"],
  ["--random_state", "1"],
  ["--use_rslora"],
  ["--per_device_train_batch_size", "1"],
  ["--gradient_accumulation_steps", "2"],
  ["--warmup_steps", "2"],
  ["--learning_rate", "5e-3"],
  ["--optim", "lion_32bit"],
  ["--weight_decay", "0.5"],
  ["--lr_scheduler_type", "constant_with_warmup"],
  ["--seed", "1"],
  ["--max_seq_length", "48"],
  ["--packing"],
  ["--max_steps", "2"],
  ["--train_on_inputs"],
  ["--group_by_length"],
  ["--max_samples", "20"],
  ["--adam_beta1", "0.5"],
  ["--adam_beta2", "0.5"],
  ["--adam_epsilon", "1e-2"],
  ["--max_grad_norm", "0.01"],
  ["--label_smoothing_factor", "0.2"],
  ["--loraplus_lr_ratio", "4"],
  ["--init_lora_weights", "gaussian"],
  ["--init_lora_weights", "pissa"],
  ["--load_in_4bit"],
  ["--neftune_noise_alpha", "5"],
  ["--chat_template", "chatml"],
])("train %s %s changes what is learnt", async (...argv) => {
  expect(same((await train(...argv.filter((a) => a !== undefined))).adapter, base)).toBe(false);
});

test("--r, --lora_alpha, --use_rslora, --use_dora, --target_modules and --layers are in the adapter", async () => {
  const { dir } = await train(
    ...[
      "--r",
      "2",
      "--lora_alpha",
      "6",
      "--use_rslora",
      "--use_dora",
      "--target_modules",
      "q_proj",
      "up_proj",
      "--layers",
      "1",
    ],
  );
  const { settings, tensors } = readPeft(dir);
  expect(settings).toMatchObject({ r: 2, alpha: 6, rslora: true, dora: true });
  const modules = new Set([...tensors.keys()].map((n) => n.replace(/\.lora_.*/, "")));
  expect([...modules].sort()).toEqual(["model.layers.1.mlp.up_proj", "model.layers.1.self_attn.q_proj"]);
  expect([...tensors.keys()].some((n) => n.includes("lora_magnitude_vector"))).toBe(true);
});

/** The linears of two layers, as peft chooses them (tuners_utils.py: check_target_module_exists, _maybe_include_all_linear_layers). */
const LINEARS = [
  ...["q_proj", "k_proj", "v_proj", "o_proj"].map((n) => `self_attn.${n}`),
  ...["gate_proj", "up_proj", "down_proj"].map((n) => `mlp.${n}`),
];
test.each([
  ["all-linear", [], /./],
  [".*\\.(q|v)_proj", [], /(q|v)_proj$/],
  ["model.layers.[0-9]{1,2}.mlp.*", ["--layers", "1"], /1\.mlp/],
])("--target_modules %s is peft's", async (value, more, chosen) => {
  const { dir } = await train("--target_modules", value, ...more);
  const { tensors } = readPeft(dir);
  const modules = new Set([...tensors.keys()].map((n) => n.replace(/\.lora_.*/, "")));
  const all = [0, 1].flatMap((layer) => LINEARS.map((n) => `model.layers.${layer}.${n}`));
  expect([...modules].sort()).toEqual(all.filter((m) => chosen.test(m)).sort());
});

test("--adaptive_rank lowers ranks to --adaptive_rank_target every --adaptive_rank_interval steps, in every file", async () => {
  const flags = ["--adaptive_rank", "--adaptive_rank_target", "1.5", "--use_rslora", "--max_steps", "20"];
  const saved = ["--save_gguf", "--quantization", "f16", "--save_path", at("lowered")]; // compared with the trained model
  const { dir, run } = await train(...flags, "--adaptive_rank_interval", "4", ...saved);
  const lines = run.out.filter((l) => l.includes("Adaptive rank"));
  expect(lines.map((l) => l.split(":")[0])).toEqual(["Iter 4", "Iter 8", "Iter 12", "Iter 16"]);
  expect(lines.at(-1)).toMatch(/Adaptive rank 1\.\d\d on average, 1 to \d; /);
  const { settings, tensors } = readPeft(dir), ranks = Object.values(settings.rankPattern);
  expect(Math.min(...ranks)).toBe(1);
  for (const [module, rank] of Object.entries(settings.rankPattern)) {
    expect(tensors.get(`${module}.lora_A.weight`)!.shape[0]).toBe(rank);
    expect(settings.alphaPattern[module] / Math.sqrt(rank)).toBeCloseTo(16 / Math.sqrt(4), 12);
  }
  const often = (await train(...flags)).run.out.filter((l) => l.includes("Adaptive rank"));
  expect(often).toHaveLength(10); // after steps 4 to 13: a decision a step
  const short = await cli([
    ...["train", "--model_name", tiny.model, "--dataset", at("data.jsonl"), "--dry_run", "--adaptive_rank"],
    ...["--max_steps", "4", "--adaptive_rank_interval", "3"],
  ]);
  expect(short.notes.at(-1)).toContain("train for 15 steps or more");
});

test("--use_gradient_checkpointing changes the memory and not the result", async () => {
  const activations = (run: Outcome) => Number(/activations ([\d.]+) (?:kB|MB)/.exec(run.out.join("\n"))![1]);
  const kept = await train("--use_gradient_checkpointing", "false");
  const recomputed = await train("--use_gradient_checkpointing", "True");
  expect(activations(recomputed.run)).not.toBe(activations(kept.run));
  expect(recomputed.run.out.join("\n")).toContain("(recomputed in the backward)");
  expect(same(recomputed.adapter, kept.adapter)).toBe(true);
});

test("--load_in_4bit holds the linears as nf4, exports what was trained, and is refused where nothing can be quantised", async () => {
  const weights = (run: Outcome) => Number(/weights ([\d.]+) kB/.exec(run.out.join("\n"))![1]);
  const plain = await train(), quantised = await train("--load_in_4bit", "--save_gguf", "--save_path", at("four"));
  expect(weights(quantised.run)).toBeLessThan(0.9 * weights(plain.run)); // the rows of down_proj alone hold whole blocks
  expect(quantised.run.out.some((l) => l.startsWith("Compared with the trained model"))).toBe(true);
  const again = await cli([
    "train",
    "--model_name",
    at("four"),
    "--dataset",
    at("data.jsonl"),
    "--load_in_4bit",
    "--dry_run",
  ]);
  expect(again.notes.at(-1)).toContain("Cannot use --load_in_4bit: no linear of");
});

test("--load_in_fp8 is refused by name where the backend has no 8-bit matrix units", async () => {
  const argv = ["train", "--model_name", tiny.model, "--dataset", at("data.jsonl"), "--load_in_fp8", "--dry_run"];
  const run = await cli([...argv, "--backend", "wasm"]);
  expect(run.status).not.toBe(0);
  expect(run.notes.at(-1)).toMatch(/Cannot use --load_in_fp8 on wasm: it needs an NVIDIA GPU.*--load_in_4bit/);
});

test("--full_finetuning trains every weight and saves the model itself", async () => {
  const dir = at("full"),
    run = await cli([
      ...["train", "--model_name", tiny.model, "--dataset", at("data.jsonl"), "--output_dir", dir, "--max_steps", "3"],
      ...["--full_finetuning", "--learning_rate", "1e-3", "--samples", "0", "--report_to", "none"],
    ]);
  expect(run.status, run.notes.join("\n")).toBe(0);
  expect(run.out.join("\n")).toContain("Trainable parameters: 100.000%");
  const [before, after] = [tiny.model, dir].map((d) => openSafetensorsFolder(d));
  const name = "model.layers.0.input_layernorm.weight";
  const [a, b] = [before, after].map((f) => readFloats(f.tensors.get(name)!));
  expect(b).not.toEqual(a);
  before.close();
  after.close();
  expect((await cli(["chat", dir, "--prompt", "Hi", "--max_tokens", "2"])).status).toBe(0);
});

test("--weight_decay spares norms and biases, as transformers' Trainer does", async () => {
  const dir = at("decayed");
  const run = await cli([
    ...["train", "--model_name", tiny.model, "--dataset", at("data.jsonl"), "--output_dir", dir, "--max_steps", "1"],
    ...["--full_finetuning", "--samples", "0", "--report_to", "none", "--lr_scheduler_type", "constant"],
    // Gradients are clipped away, so that the step is the decay alone: 1 - 0.5 · 0.5.
    ...["--optim", "sgd", "--max_grad_norm", "1e-9", "--learning_rate", "0.5", "--weight_decay", "0.5"],
    ...["--warmup_steps", "0"],
  ]);
  expect(run.status, run.notes.join("\n")).toBe(0);
  const [before, after] = [tiny.model, dir].map((d) => openSafetensorsFolder(d));
  for (const [name, t] of before.tensors) {
    const share = t.shape.length > 1 ? 0.75 : 1, [a, b] = [t, after.tensors.get(name)!].map((x) => readFloats(x));
    const norm = (x: Float32Array) => Math.hypot(...x);
    expect(norm(b) / norm(a), name).toBeCloseTo(share, 2);
  }
  before.close();
  after.close();
});

test("--logging_steps sets how many lines there are", async () => {
  const lines = async (n: string) =>
    (await train("--logging_steps", n)).run.out.filter((l) => l.startsWith("Iter ")).length;
  expect([await lines("1"), await lines("2"), await lines("3")]).toEqual([3, 2, 1]);
});

test("--raw_text_file trains on chunks of --chunk_size tokens that share --stride tokens", async () => {
  const rows = async (size: string, stride: string) => {
    const { out, status, notes } = await cli([
      ...["train", "--model_name", tiny.model, "--raw_text_file", at("text.txt"), "--dry_run"],
      ...["--chunk_size", size, "--stride", stride],
    ]);
    expect(status, notes.join("\n")).toBe(0);
    return Number(/^Rows (\d+) /m.exec(out.join("\n"))![1]);
  };
  const [plain, shared, smaller] = [await rows("64", "0"), await rows("64", "32"), await rows("32", "0")];
  expect(shared).toBeGreaterThan(1.8 * plain);
  expect(smaller).toBeGreaterThan(1.8 * plain);
});

test("--eval_split with --per_device_eval_batch_size evaluates held-out rows", async () => {
  const values = async (n: string) =>
    (await train("--eval_split", "4", "--per_device_eval_batch_size", n)).run.out.flatMap((l) =>
      /Val loss ([\d.]+)/.exec(l)?.[1] ?? []
    );
  const [one, four] = [await values("1"), await values("4")];
  expect(one).toHaveLength(2);
  expect(four).toEqual(one);
});

test("--preference chosen trains on the chosen answers, which are refused without it", async () => {
  const record = { prompt: "Where does the owl live?", chosen: "In a tree.", rejected: "In the sea." };
  writeFileSync(at("pairs.json"), JSON.stringify([record, record]));
  const run = (...more: string[]) =>
    cli(["train", "--model_name", tiny.model, "--dataset", at("pairs.json"), "--dry_run", ...more]);
  expect((await run()).notes.at(-1)).toContain("--preference chosen");
  const { status, out } = await run("--preference", "chosen");
  expect(status).toBe(0);
  const text = out.join("\n").replaceAll(/[[\]]/g, "");
  expect(text).toContain("Answer: In a tree.");
  expect(text).not.toContain("sea");
});

test("--bias needs a model that has biases", async () => {
  const run = await cli([
    "train",
    "--model_name",
    tiny.model,
    "--dataset",
    at("data.jsonl"),
    "--bias",
    "all",
    "--dry_run",
  ]);
  expect(run.notes.at(-1)).toContain("Cannot use --bias all: the model has no biases");
});
