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
  expect(out.join("\n")).toMatch(/^max_steps: 6$/m);
  expect(out.join("\n")).not.toContain("dry_run"); // the printed config is that of the run itself
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
  expect(await failure("--save_gguf", "--imatrix", join(tiny.dir, "none"))).toContain("there is no such file");
  writeFileSync(join(tiny.dir, "blank.txt"), " \n");
  expect(await failure("--save_gguf", "--imatrix", join(tiny.dir, "blank.txt"))).toContain("it is empty");
  expect(await failure("--save_model", "--save_path", tiny.model)).toContain("the model itself lies there");
  expect(await failure("--eval_file", join(tiny.dir, "none"))).toContain("--eval_file");
  expect(await failure("--preference", "chosen")).toContain("have no rejected answers");
  expect(await failure("--revision", "v1")).toContain("is a model on this machine");
  expect(await failure("--resume")).toContain("there is no checkpoint in");
  // The data is looked for before a model is fetched: this name would otherwise be asked for at the Hub.
  const absent = ["--model_name", "org/absent", "--offline", "--dataset", "none.jsonl"];
  expect(await failure(...absent)).toContain('Cannot find the dataset "none.jsonl"');
  mkdirSync(join(tiny.dir, "empty"));
  expect(await failure("--model_name", join(tiny.dir, "empty"))).toContain("no config.json");
  expect(existsSync(join(tiny.dir, "bad"))).toBe(false);
});

test("an unfinished run is not lost to a new one in its folder; --resume is checked before the model is loaded", async () => {
  const stop = new AbortController();
  const events = cli(base("unfinished", "--max_steps", "100000"), { signal: stop.signal });
  setTimeout(() => stop.abort(), 1500);
  expect((await events).status).toBe(130);
  const anew = await cli(base("unfinished"));
  expect(anew.notes.at(-1)).toMatch(
    /Cannot start anew in .*: .*checkpoint-\d+ is of a run that did not end; .*--resume/,
  );
  const other = await cli(base("unfinished", "--max_steps", "100000", "--learning_rate", "1", "--resume"));
  expect(other.notes.at(-1)).toMatch(/Cannot resume from .*learning_rate was .* and is 1/);
  const text = readFileSync(data, "utf8");
  const [first, ...rest] = text.split("\n"); // the same rows in another order: the same counts, another run
  writeFileSync(data, [...rest, first].join("\n"));
  const changed = await cli(base("unfinished", "--max_steps", "100000", "--resume"));
  expect(changed.notes.at(-1)).toMatch(/Cannot resume from .*: data was \d+ and is \d+/);
  writeFileSync(data, text);
  expect(other.notes.join("\n")).not.toContain("Loading pretrained model");
  const ended = await cli(base("ended", "--save_steps", "2"));
  expect([ended.status, (await cli(base("ended"))).status]).toEqual([0, 0]);
});

test("Ctrl-C after the last step does not lose what was trained", async () => {
  const stop = new AbortController();
  const terminal = base("late", "--samples", "2", "--eval_file", held);
  const run = cli(terminal, { signal: stop.signal, onLine: (line) => line.startsWith("Iter 6: Val") && stop.abort() });
  expect((await run).status).toBe(0);
  expect(existsSync(join(tiny.dir, "late", "adapter_model.safetensors"))).toBe(true);
});

test("--eval_split holds rows out of the embedded instructions too, and warnings name what will not happen", async () => {
  const dry = async (...more: string[]) => (await cli(["train", "--dry_run", ...more])).out.join("\n");
  expect(await dry()).toContain("Held out: 55 rows of ");
  const text = await dry("--eval_split", "7", "--max_steps", "4", "--warmup_steps", "4", "--max_seq_length", "16");
  expect(text).toContain("Held out: 7 of 333 rows");
  expect(text).toContain("[WARNING] The warm-up takes all 4 steps");
  expect(await dry("--learning_rate", "0")).toContain("[WARNING] The learning rate is 0");
  expect((await cli(["train", "--dataset", data, "--offline", "--dry_run"])).out[0]).toBe(
    "Only a dataset was given: --model_name is unsloth/llama-3-8b, as in unsloth-cli.py",
  );
});

test("the length that rows are cut to is the one that is told", async () => {
  const long = join(tiny.dir, "long.jsonl");
  writeFileSync(long, JSON.stringify({ text: "owl ".repeat(400) }));
  const { out } = await cli(base("cut", "--dataset", long, "--dry_run"));
  expect(out.join("\n")).toMatch(/longer than 128 tokens.* will be truncated to 128/); // the model's, not --max_seq_length's 2048
});

test("on a screen the progress bar tells the step and the time left", async () => {
  const { statusLines } = await cli(base("bar"), { tty: true });
  expect(statusLines.some((l) => /^Step 3\/6 █+░+ loss \d\.\d{3}, 0:\d\d left$/.test(l))).toBe(true);
});
