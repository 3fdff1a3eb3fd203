/** Flags that the data decides about: each acts on it or is refused by name, before a weight is read. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tinyModel } from "../train/tiny_model.ts";
import { cli } from "./cli.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>;
const at = (name: string) => join(tiny.dir, name);

beforeAll(async () => {
  tiny = await tinyModel();
  writeFileSync(at("alpaca.jsonl"), '{"instruction":"a","output":"b"}\n{"instruction":"c","output":"d"}\n');
  writeFileSync(at("pairs.jsonl"), '{"prompt":"a ","completion":"b"}\n');
  writeFileSync(at("texts.jsonl"), '{"text":"The owl can see in the dark."}\n');
  writeFileSync(at("book.txt"), "The fox lives in the forest. ".repeat(400));
  mkdirSync(at("folder"));
});
afterAll(() => tiny.remove());

async function plan(...argv: string[]) {
  const paths = argv.map((a) => a.startsWith("@") ? at(a.slice(1)) : a);
  return await cli(["train", "--model_name", tiny.model, "--dry_run", "--output_dir", at("out"), ...paths]);
}

/** What is refused, and words of the way out. */
const REFUSED: [argv: string, says: RegExp][] = [
  ["--dataset @alpaca.jsonl --eval_split 2", /Cannot hold out 2 of 2 rows: at least one must be left/],
  ["--dataset @alpaca.jsonl --eval_split 0.99", /Cannot hold out 0.99 of 2 rows/],
  ["--dataset @alpaca.jsonl --chat_template @folder", /folder: it is neither alpaca, chatml nor a file/],
  [
    "--dataset @alpaca.jsonl --columns instruction=output instruction=instruction",
    /mapped to output and to instruction/,
  ],
  ["--dataset @pairs.jsonl --preference chosen", /no record of .*pairs\.jsonl has a label/],
  ["--dataset data/none.json", /"data\/none.json": there is no such path, and it is no Hub id/],
  ["--raw_text_file @alpaca.jsonl", /holds alpaca records and no plain text; give it as --dataset/],
  [
    "--raw_text_file @book.txt --chunk_size 64 --stride 8 --max_seq_length 32",
    /--chunk_size 64: a row holds 32 tokens/,
  ],
  ["--raw_text_file @book.txt --stride 600 --max_seq_length 32", /--stride 600: a chunk holds 32 tokens/],
  ["--raw_text_file @book.txt --train_on_responses_only", /texts, of which every token is trained/],
  ["--dataset @texts.jsonl --response_turns last", /--response_turns: .*texts, of which every token is trained/],
  ["--dataset @texts.jsonl --chat_template chatml", /texts, which are trained as they stand/],
];
test.each(REFUSED)("train %s is refused", async (argv, says) => {
  const { status, notes } = await plan(...argv.split(" "));
  expect([status, notes.at(-1)]).toEqual([2, expect.stringMatching(says)]);
});

test("--chat_template acts on prompts and completions, which are joined as they stand without one", async () => {
  const shown = async (...argv: string[]) => (await plan("--dataset", "@pairs.jsonl", ...argv)).out.join("\n");
  expect(await shown()).not.toContain("im_start");
  expect(await shown("--chat_template", "chatml")).toMatch(/Template: the chat template chatml; [^]*im_start/);
});

test("a raw text's default overlap shrinks with its chunks", async () => {
  // unsloth-cli.py's defaults share a quarter of a chunk: 512 of 2,048 tokens.
  const { out } = await plan("--raw_text_file", "@book.txt", "--max_seq_length", "64");
  expect(out).toContain("Chunks of 64 tokens that share 16");
});

const few = ["--dataset", "@alpaca.jsonl", "--max_steps", "3", "--warmup_steps", "0"];
test.each<[string[], RegExp[]]>([
  [["--eval_file", "@alpaca.jsonl"], [/\[WARNING\] 2 of 2 held-out rows are trained on too/]],
  [["--eval_file", "@held.jsonl"], [
    /^Held out: 1 row of /,
    /^Of .*held\.jsonl: \[WARNING\] 1 record has an empty answer/,
  ]],
  [["--eval_split", "1", "--eval_steps", "9", "--early_stopping_patience", "1"], [
    /--eval_steps 9: .* never stopped early/,
  ]],
  [["--save_steps", "9"], [/\[WARNING\] The run ends before --save_steps 9: no checkpoint is written/]],
  [["--gradient_accumulation_steps", "9"], [
    /\[WARNING\] A step would take 2 x 9 rows and there are 2: each takes them all/,
  ]],
])("what will not act as it reads is told: %s", async (more, says) => {
  writeFileSync(at("held.jsonl"), '{"instruction":"e","output":""}\n');
  const { out } = await plan(...few, ...more);
  for (const words of says) expect(out).toContainEqual(expect.stringMatching(words));
});
