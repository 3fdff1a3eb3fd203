/**
 * How much of the held-out instruction set is answered to the letter, before and after fine-tuning:
 * `deno run -A tools/embedded/evaluate.ts [MODEL] [steps] [learning rate] [rank]`.
 * @module
 */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { ask, type LanguageModel, loadPretrained, trainModel } from "../../mod.ts";
import type { InstructionRow } from "./instructions.ts";

const folder = new URL("../../models/embedded/", import.meta.url);
const read = (name: string): InstructionRow[] =>
  readFileSync(new URL(name, folder), "utf8").trim().split("\n").map((line) => JSON.parse(line));

/** Counts of answers: right to the letter, and in the right form. */
async function score(m: LanguageModel, rows: readonly InstructionRow[]): Promise<string> {
  let exact = 0, form = 0;
  for (const { messages: [question, answer] } of rows) {
    const said = await ask(m, question.content, { maxTokens: 48 });
    if (said === answer.content) exact++;
    if (/^Here is the answer: The .*\. Questions are good!$/.test(said)) form++;
  }
  return `${exact} of ${rows.length} to the letter, ${form} in the right form`;
}

const [name = "embedded", steps = "60", rate = "5e-3", rank = "16"] = process.argv.slice(2);
const model = await loadPretrained(name, { r: Number(rank), loraAlpha: Number(rank), maxSeqLength: 256 });
const train = read("instructions.jsonl"), heldOut = read("held_out.jsonl");
console.log(`held out, before: ${await score(model, heldOut)}`);
const started = performance.now();
await trainModel(model, train as unknown as Record<string, unknown>[], {
  ...{ maxSteps: Number(steps), batchSize: 8, gradientAccumulation: 1, learningRate: Number(rate), schedule: "linear" },
  ...{ optim: "adamw_torch", outputDir: join(tmpdir(), "unsloth-embedded-evaluation") },
});
console.log(`${steps} steps in ${((performance.now() - started) / 1000).toFixed(1)} s`);
console.log(`held out, after:  ${await score(model, heldOut)}`);
console.log(`trained, after:   ${await score(model, train.slice(0, 55))}`);
model.close();
