import { afterAll, beforeAll, expect, test } from "vitest";
import { existsSync } from "node:fs";
import { join } from "node:path";
import * as library from "../../mod.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>;
beforeAll(async () => {
  tiny = await tinyModel();
});
afterAll(() => tiny.remove());
const load = (o: library.LoadPretrainedOptions = {}) => library.loadPretrained(tiny.model, { threads: 1, r: 4, ...o });

test("a model is loaded, trained on records of any shape, asked and saved", async () => {
  const model = await load({ log: () => {} });
  const records = instructions(1).train.slice(0, 8).map((r) => ({
    q: r.messages[0].content,
    a: r.messages[1].content,
  }));
  const events: string[] = [];
  const result = await library.trainModel(model, records, {
    format: ({ q, a }) => ({ messages: [{ role: "user", content: q }, { role: "assistant", content: a }] }),
    ...{ maxSteps: 30, batchSize: 4, gradientAccumulation: 1, learningRate: 3e-2, outputDir: join(tiny.dir, "out") },
    ...{ heldOut: records, onEvent: (e) => events.push(e.kind) },
  });
  expect(result.steps).toBe(30);
  expect(result.evaluations[1].loss).toBeLessThan(result.evaluations[0].loss);
  expect(new Set(events)).toEqual(new Set(["eval", "step", "log"]));
  const answer = await library.ask(model, records[0].q, { maxTokens: 12 });
  expect(typeof answer).toBe("string");
  const [file] = await library.saveGguf(model, join(tiny.dir, "gguf"), { quantization: ["f16"] });
  expect(existsSync(file.path)).toBe(true);
  expect(file.verification!.refused).toBe(null);
  await library.saveModel(model, join(tiny.dir, "adapter"));
  expect(existsSync(join(tiny.dir, "adapter", "adapter_model.safetensors"))).toBe(true);
  model.close();
});

test("memory() tells what is in use, the peak and its reset; a limit is kept", async () => {
  const model = await load();
  const before = model.memory();
  expect(before.active).toBeGreaterThan(0);
  expect(before.peak).toBeGreaterThanOrEqual(before.active);
  await library.ask(model, "Hello", { maxTokens: 2 });
  const after = model.memory();
  expect(after.active).toBe(before.active); // cache and step memory were given back
  expect(after.peak).toBeGreaterThan(after.active);
  expect(after.cached).toBeGreaterThan(0);
  model.resetPeakMemory();
  expect(model.memory().peak).toBe(after.active);
  expect(model.clearCache()).toBe(0); // wasm cannot give back
  model.close();
  const tight = await load({ memoryLimit: 8e6 });
  expect(tight.memory().limit).toBeLessThan(8e6);
  const rows = Array.from({ length: 64 }, () => ({ text: "the owl can see ".repeat(100) }));
  await expect(library.trainModel(tight, rows, { batchSize: 64, outputDir: tiny.dir })).rejects.toThrow(
    library.MemoryError,
  );
  tight.close();
});

test("what is wrong with a name or an option is an error of ours, and nothing stays open", async () => {
  await expect(library.loadPretrained(join(tiny.dir, "none"))).rejects.toThrow(library.ConfigError);
  await expect(load({ backend: "cuba" })).rejects.toThrow('Cannot use backend "cuba"');
  await expect(load({ targetModules: ["w_proj"] })).rejects.toThrow("Cannot adapt 'w_proj'");
  await expect(load({ r: 0 })).rejects.toThrow("Cannot set r to 0: it takes 1 to 1024");
  await expect(load({ lora_alpha: 3 } as never)).rejects.toThrow("Unknown option lora_alpha: did you mean loraAlpha?");
  const model = await load({ targetModules: "all-linear" }), rows = [{ instruction: "a", output: "b" }];
  const refused = async (o: object, words: string) => {
    const training = library.trainModel(model, rows, { ...o, outputDir: join(tiny.dir, "refused") });
    await expect(training).rejects.toThrow(words);
  };
  await refused({ max_steps: 2 }, "Unknown option max_steps: did you mean maxSteps?");
  await refused({ maxSteps: -2 }, "Cannot set maxSteps to -2");
  await refused({ learningRate: NaN }, "Cannot set learningRate to NaN: it takes a number");
  await refused({ evalSteps: 2 }, "evalSteps: it acts only with heldOut");
  await refused({ heldOut: rows, patience: 2 }, "patience: it acts only with evalSteps");
  await expect(library.saveGguf(model, tiny.dir, { quantization: [] })).rejects.toThrow("quantization names no type");
  model.close();
});

test("what is found in the data is told", async () => {
  const model = await load(), said: string[] = [];
  const row = { instruction: "a", output: "", id: 12345678901234567890n };
  const o = { maxSteps: 1, outputDir: join(tiny.dir, "told"), log: (sentence: string) => said.push(sentence) };
  await library.trainModel(model, [row], o);
  expect(said.join("\n")).toMatch(/Columns not used: id[^]*\[WARNING\] 1 record has an empty answer[^]*Rows 1 from 1/);
  model.close();
});

test("the engine of a trained model serves over HTTP", async () => {
  const model = await load(), engine = library.engineOf(model);
  const app = library.createApp(engine);
  const body = JSON.stringify({ messages: [{ role: "user", content: "Hi" }], max_tokens: 2 });
  const answer = await app.request("/v1/chat/completions", { method: "POST", body });
  expect((await answer.json()).usage.completion_tokens).toBe(2);
  await engine.close();
  model.close();
});
