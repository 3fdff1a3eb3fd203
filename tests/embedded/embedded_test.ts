import { afterAll, beforeAll, expect, test } from "vitest";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { tokenizerJson, trainBpe } from "../../tools/embedded/bpe.ts";
import { documents } from "../../tools/embedded/corpus.ts";
import { fill } from "../../tools/embedded/describe.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { ANIMALS, WORLD } from "../../tools/embedded/world.ts";
import { instructionFiles } from "../../tools/embedded/write_instructions.ts";
import { start } from "../cli/process.ts";

const FOLDER = new URL("../../models/embedded/", import.meta.url);
const GGUF = fileURLToPath(new URL("unsloth-tiny.Q8_0.gguf", FOLDER));
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "unsloth-embedded-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("trainBpe() finds the merges of the textbook example", () => {
  // aaabdaaabac: aa, then ab, then both together (Gage 1994).
  expect(trainBpe(["aaabdaaabac"], 3, 2).merges).toEqual([["a", "a"], ["a", "b"], ["aa", "ab"]]);
  expect(trainBpe(["aaabdaaabac"], 9, 2).merges).toHaveLength(3); // no pair occurs twice any more
  const vocab =
    (tokenizerJson(trainBpe(["ab ab"], 1, 2), ["<|end|>"]).model as { vocab: Record<string, number> }).vocab;
  expect(vocab["<|end|>"]).toBe(0);
  expect(vocab.ab).toBe(257);
});

test("the corpus is the same from the same seed and never holds the form of the answers", () => {
  const read = (seed: number) => {
    const stream = documents(seed);
    return Array.from({ length: 200 }, () => stream.next().value as string);
  };
  expect(read(3)).toEqual(read(3));
  expect(read(3)).not.toEqual(read(4));
  expect(read(3).join("\n")).not.toMatch(/Here is the answer|good!|Question:|Answer:|undefined|NaN/);
});

test("fill() puts the thing and its fact into a frame", () => {
  const owl = ANIMALS.find((t) => t.name === "owl")!;
  expect(fill("A lives F.", owl, "home")).toBe("An owl lives in a hollow tree.");
  expect(fill("Look at the F2 of X!", ANIMALS.find((t) => t.name === "fox")!, "look")).toBe(
    "Look at the red fur of the fox!",
  );
  expect(fill("Every ripe N is F.", WORLD.find((t) => t.name === "pea")!, "colour")).toBe("Every ripe pea is green.");
});

test("the instruction files are what the generator gives, and no held-out thing is in a training row", () => {
  for (const [name, text] of Object.entries(instructionFiles())) {
    expect(readFileSync(new URL(name, FOLDER), "utf8")).toBe(text);
  }
  const { train, heldOut } = instructions(1),
    words = (rows: typeof train) => rows.map((r) => r.messages[0].content).join(" ");
  const held = WORLD.filter((t) => new RegExp(`\\b${t.name}\\b`).test(words(heldOut)));
  expect(held.length).toBe(16);
  for (const thing of held) expect(words(train)).not.toMatch(new RegExp(`\\b${thing.name}\\b`));
});

test("the model is one GGUF of at most 3 MB, of our own vocabulary, that says whose it is", () => {
  expect(statSync(GGUF).size).toBeLessThanOrEqual(3e6);
  const source = openModel(GGUF), tokenizer = loadTokenizer(GGUF);
  expect(source.config).toMatchObject({ vocab: 1728, dim: 192, layers: 6, tied: true, maxPos: 512 });
  expect(tokenizer.eos.map((id) => tokenizer.piece(id))).toEqual(["<|end|>"]);
  expect(tokenizer.addBos).toBe(false);
  const [{ messages }] = instructions(1).train,
    chat = tokenizer.chat(messages.map((m) => ({ ...m })), { addPrompt: false });
  expect(chat).toBe(`Question: ${messages[0].content}\nAnswer: ${messages[1].content}<|end|>`);
  const text = "The owl lives in a hollow tree.";
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  expect(tokenizer.encode(text)).toHaveLength(8); // a token a word, and the full stop
  source.close();
});

test("train alone, with no network, teaches it the form and the end; chat answers with the result", {
  timeout: 600_000,
}, async () => {
  const dead = { HF_ENDPOINT: "http://127.0.0.1:1" };
  const run = start(["train"], dead, dir);
  expect(await run.ended, run.output()).toBe(0);
  const text = run.output();
  expect(text).toContain("Neither --model_name nor --dataset was given");
  const [, before, after] = text.match(/Held-out loss ([\d.]+) before, ([\d.]+) after/)!.map(Number);
  expect(before).toBeGreaterThan(4);
  expect(after).toBeLessThan(1);
  expect(text.match(/^before .*(?:\n {8}.*)*\(does not end\)$/gm)).toHaveLength(2);
  expect(text.match(/^after {3}Here is the answer: The .*\. Questions are good!$/gm)).toHaveLength(2);
  expect(text).toMatch(/Wrote model.unsloth-tiny\.Q8_0\.gguf \(\d\.\d MB\)\nCompared with the trained model/);
  expect(text).toMatch(/Next:\n.* chat model.unsloth-tiny\.Q8_0\.gguf\n/);
  for (const file of ["config.yaml", "metrics.jsonl", "loss.svg", "adapter_model.safetensors"]) {
    expect(existsSync(join(dir, "outputs", file)), file).toBe(true);
  }
  const chat = start(["chat", "--prompt", instructions(1).heldOut[2].messages[0].content], dead, dir); // what was trained last
  expect(await chat.ended, chat.output()).toBe(0);
  expect(chat.output()).toMatch(/^Here is the answer: The .*\. Questions are good!$/m);
});
