/**
 * How fast does the CPU read a prompt and answer? SmolLM2-135M from its Q4_1 file: a prompt of 256 tokens, then answers of
 * one request and of four at once. A step of one token reads every weight once, so the ceiling is the memory's rate (or the
 * second core's): bytes a token times tokens/s is printed beside it.
 *
 *   deno run -A bench/decode.ts [--model ../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf] [--threads 2] [--ops]
 * @module
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { byteLength } from "../src/core/tensor.ts";
import { DecoderRunner } from "../src/infer/runner.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { createWasmBackend } from "../wasm/mod.ts";
import { cpuTime, type Entry, metered, printBook } from "./meter.ts";

const PROMPT = 256, STEPS = 24, CONTEXT = 512;

const { values: o } = parseArgs({
  args: process.argv.slice(2),
  options: {
    model: { type: "string", default: "../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf" },
    threads: { type: "string" },
    ops: { type: "boolean", default: false },
  },
});
const wasm = await createWasmBackend({ threads: o.threads ? Number(o.threads) : undefined });
const book = new Map<string, Entry>(), be = metered(wasm, book, o.ops ? cpuTime : null);
const model = await loadModel(openModel(o.model), { backend: be, maxLength: CONTEXT });
const runner = new DecoderRunner(model, { slots: 4, contextLength: CONTEXT, stepTokens: PROMPT });
const bytes = [...model.weights.values()].reduce((s, t) => s + byteLength(t), 0);
console.log(`${wasm.device}; weights ${(bytes / 1e6).toFixed(1)} MB`);

/** Runs `work` `count` times and prints what one of them took at best, by the clock and in CPU time of all threads. */
async function report(
  name: string,
  tokens: number,
  count: number,
  work: (i: number) => Promise<unknown>,
): Promise<void> {
  let wall = Infinity, cpu = Infinity;
  book.clear();
  for (let i = 0; i < count; i++) {
    const start = performance.now(), used = cpuTime();
    await work(i);
    wall = Math.min(wall, performance.now() - start);
    cpu = Math.min(cpu, cpuTime() - used);
  }
  const rate = (ms: number): string => (1000 * tokens / ms).toFixed(1);
  console.log(
    `${name.padEnd(34)} ${rate(wall)} tokens/s; ${rate(cpu)} a CPU second, ${(bytes / cpu / 1e6).toFixed(1)} GB/s`,
  );
  if (o.ops) printBook(book, 14);
}

const range = (n: number, f: (i: number) => number): Int32Array => Int32Array.from({ length: n }, (_, i) => f(i));
const id = (i: number): number => (i * 7919 + 13) % model.config.vocab;

for (let slot = 0; slot < 4; slot++) {
  const step = { ids: range(PROMPT, id), pos: range(PROMPT, (i) => i), seq: range(PROMPT, () => slot) };
  const name = `prompt of ${PROMPT}, slot ${slot}`;
  await report(name, PROMPT, 1, () => runner.forward({ ...step, rows: Int32Array.of(PROMPT - 1) }));
}
for (const slots of [1, 2, 4]) {
  await report(`${slots} answer${slots > 1 ? "s" : ""} at once`, slots, STEPS, (i) => {
    const pos = range(slots, () => PROMPT + i), seq = range(slots, (s) => s);
    return runner.forward({ ids: range(slots, (s) => id(i + s)), pos, seq, rows: range(slots, (s) => s) });
  });
}
runner.close();
model.close();
wasm.close();
