// Fine-tunes a model on a file and writes a GGUF:
// deno run -A examples/finetune.ts MODEL DATASET [STEPS]   (or: bun examples/finetune.ts …)
import process from "node:process";
import { ask, loadPretrained, saveGguf, saveModel, trainModel } from "../mod.ts";

const [name = "embedded", dataset = "embedded", steps = "60"] = process.argv.slice(2);
const model = await loadPretrained(name, { r: 16, maxSeqLength: 256, log: console.log });
const question = "What does the bear eat?";
console.log("before:", await ask(model, question, { maxTokens: 40 }));

const result = await trainModel(model, dataset, {
  maxSteps: Number(steps),
  batchSize: 4,
  gradientAccumulation: 1,
  learningRate: 2e-3,
  outputDir: "outputs",
  onEvent: (e) => e.kind === "log" && console.log(`step ${e.figures.step}: loss ${e.figures.loss.toFixed(3)}`),
});

console.log("after:", await ask(model, question, { maxTokens: 40 }));
console.log(`${result.steps} steps, ${result.trainedTokens} trained tokens`);
await saveModel(model, "outputs"); // the adapter, in PEFT's format
for (const file of await saveGguf(model, "model", { quantization: ["q8_0"], log: console.log })) console.log(file.path);

const { active, peak, limit } = model.memory(); // bytes: now, most since the start, what may be used
console.log(`memory: ${(active / 1e6).toFixed(0)} MB now, ${(peak / 1e6).toFixed(0)} at most, of ${limit / 1e6}`);
model.close();
