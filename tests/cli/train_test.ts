import { afterAll, beforeAll, expect, test } from "vitest";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readPeft } from "../../src/formats/peft.ts";
import { readMetrics } from "../../src/train/mod.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";
import { cli } from "./cli.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>, data: string, held: string;
beforeAll(async () => {
  tiny = await tinyModel();
  const { train, heldOut } = instructions(1);
  data = join(tiny.dir, "data.jsonl");
  held = join(tiny.dir, "held.jsonl");
  writeFileSync(data, train.slice(0, 20).map((r) => JSON.stringify(r)).join("\n"));
  writeFileSync(held, heldOut.slice(0, 6).map((r) => JSON.stringify(r)).join("\n"));
});
afterAll(() => tiny.remove());

const base = (name: string, ...more: string[]) => [
  ...["train", "--model_name", tiny.model, "--dataset", data, "--output_dir", join(tiny.dir, name)],
  ...["--max_steps", "6", "--r", "4", "--learning_rate", "1e-2", "--samples", "1", ...more],
];

test("train writes the adapter, the resolved config, metrics and curve, and logs in Unsloth's shape", async () => {
  const { status, out, notes } = await cli(base("out", "--eval_file", held));
  expect(notes.filter((n) => n.includes("Error"))).toEqual([]);
  expect(status).toBe(0);
  const dir = join(tiny.dir, "out"), text = out.join("\n");
  const adapter = readPeft(dir);
  expect(adapter.settings).toMatchObject({ r: 4, alpha: 16, baseModel: tiny.model });
  expect(adapter.tensors.size).toBe(2 * 7 * 2);
  expect([...adapter.tensors].some(([n, t]) => n.includes("lora_B") && t.values.some((v) => v !== 0))).toBe(true);
  expect(readFileSync(join(dir, "config.yaml"), "utf8")).toContain("max_steps: 6");
  expect(readFileSync(join(dir, "loss.svg"), "utf8")).toContain("<polyline");
  expect(readMetrics(join(dir, "metrics.jsonl")).filter((m) => m.loss !== undefined)).toHaveLength(6);
  expect(existsSync(join(dir, "runs"))).toBe(true); // report_to is tensorboard by default
  expect(text).toMatch(
    /^Iter 6: Train loss \d\.\d{3}, Learning Rate \d\.\d{3}e-\d\d, It\/sec [\d.]+, Tokens\/sec [\d.]+, Trained Tokens \d+, Peak mem \d\.\d{3} GB$/m,
  );
  expect(text).toMatch(/^Iter 0: Val loss \d\.\d{3}, Val took \d+\.\d{3}s$/m);
  expect(text).toContain("Data is formatted and ready!");
  expect(text).toMatch(/^Trainable parameters: \d+\.\d{3}% \(0\.\d{3}M\/0\.\d{3}M\)$/m);
  expect(text).toContain("Starting training..., iters: 6");
  expect(text).toContain(`Saved final weights to ${join(dir, "adapter_model.safetensors")}.`);
  expect(text).toMatch(/First example, trained tokens in \[brackets\]:\nQuestion: .*⏎\nAnswer:\[/);
  expect(text).toMatch(/before .*\nafter/s);
  const [, before, after] = text.match(/Held-out loss ([\d.]+) before, ([\d.]+) after/)!;
  expect(Number(after)).toBeLessThan(Number(before));
});

test("the config a run saved, given back, repeats the run", async () => {
  const again = join(tiny.dir, "again");
  const { status } = await cli(["train", "--config", join(tiny.dir, "out", "config.yaml"), "--output_dir", again]);
  expect(status).toBe(0);
  const losses = (dir: string) => readMetrics(join(dir, "metrics.jsonl")).map((m) => m.loss ?? m.evalLoss);
  expect(losses(again)).toEqual(losses(join(tiny.dir, "out")));
});

test("--dry_run shows the plan and the config, and writes nothing", async () => {
  const { status, out } = await cli(base("dry", "--dry_run"));
  expect(status).toBe(0);
  expect(existsSync(join(tiny.dir, "dry"))).toBe(false);
  expect(out.join("\n")).toContain("dry_run: true");
  expect(out.some((l) => l.startsWith("Steps 6,"))).toBe(true);
});

test("Ctrl-C saves a checkpoint and --resume ends where the whole run ends, to the bit", async () => {
  const stop = new AbortController();
  const whole = await cli(base("whole"));
  const watching = cli(base("cut", "--logging_steps", "1"), { signal: stop.signal });
  stop.abort(); // before the first step: it is still made, then the run stops
  const cut = await watching;
  expect([whole.status, cut.status]).toEqual([0, 130]);
  expect(cut.out.join("\n")).toMatch(/Saved checkpoint to .*checkpoint-000001\.\nStopped after step 1; .*--resume/);
  const rest = await cli(base("cut", "--resume"));
  expect(rest.status).toBe(0);
  expect(rest.out.join("\n")).toContain("Going on after step 1");
  const [a, b] = ["whole", "cut"].map((n) => readFileSync(join(tiny.dir, n, "adapter_model.safetensors")));
  expect(b.equals(a)).toBe(true);
});

test("epochs give the steps, and packing makes fewer of them", async () => {
  const steps = async (...more: string[]) => {
    const argv = base("dry", "--dry_run", "--epochs", "2", ...more).filter((a, i, all) =>
      a !== "--max_steps" && all[i - 1] !== "--max_steps"
    );
    const { out, notes } = await cli(argv);
    expect(notes.filter((n) => n.includes("Error"))).toEqual([]);
    return Number(/^Steps (\d+), /m.exec(out.join("\n"))![1]);
  };
  expect(await steps()).toBe(6); // 20 rows, 2 a micro-batch, 4 of them a step: 3 steps an epoch
  expect(await steps("--packing", "--max_seq_length", "120")).toBeLessThan(6);
});

test("what would fail at the end is refused before the beginning", async () => {
  const failure = async (...more: string[]) => {
    const { status, notes } = await cli(base("bad", ...more));
    expect(status).toBeGreaterThan(0);
    return notes.at(-1);
  };
  expect(await failure("--save_gguf", "--quantization", "q9_9")).toContain("Cannot quantise to 'q9_9'");
  expect(await failure("--layers", "5")).toContain("the model has layers 0 to 1");
  expect(await failure("--max_seq_length", "4096")).toContain("the model's positions end at 128");
  expect(await failure("--dtype", "bfloat16")).toContain("f32");
  expect(await failure("--chat_template", "none.jinja")).toContain("--chat_template none.jinja");
  writeFileSync(join(tiny.dir, "file"), "");
  expect(await failure("--output_dir", join(tiny.dir, "file"))).toContain("Cannot write to --output_dir");
  mkdirSync(join(tiny.dir, "empty"));
  expect(await failure("--model_name", join(tiny.dir, "empty"))).toContain("no config.json");
  expect(existsSync(join(tiny.dir, "bad"))).toBe(false);
});

test("on a screen the progress bar tells the step and the time left", async () => {
  const { statusLines } = await cli(base("bar"), { tty: true });
  expect(statusLines.some((l) => /^Step 3\/6 █+░+ loss \d\.\d{3}, 0:\d\d left$/.test(l))).toBe(true);
});
