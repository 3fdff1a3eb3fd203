/**
 * How fast does a served model answer? Tokens a second of prefill and of decoding 1, 2 and 4 requests together, through
 * the runner that the server uses, against the ceiling of memory: each step reads every weight once, so a step takes at
 * least weight bytes / bandwidth; the bandwidth is measured by summing a large tensor on the same backend and threads.
 *   deno run -A bench/decode.ts [MODEL.gguf] [threads]
 * Best of several repetitions; the last table says which operations a step of one token spends its time in.
 */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Backend } from "../src/core/backend.ts";
import { bytesOf } from "../src/core/dtype.ts";
import { numel } from "../src/core/tensor.ts";
import { DecoderRunner } from "../src/infer/runner.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { createWasmBackend } from "../wasm/mod.ts";

const SHARED = fileURLToPath(new URL("../../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url));
const path = process.argv[2] ?? SHARED;
if (!existsSync(path)) throw new Error(`Cannot measure: '${path}' does not exist; name a model`);
const threads = Number(process.argv[3] ?? availableParallelism());
/** Position at which decoding is measured: the cache holds so many tokens of each request. */
const AT = 256, REPEAT = 12;

/** Wall seconds of the fastest of `n` runs. */
async function best(n: number, work: () => Promise<unknown> | void): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < n; i++) {
    const t = performance.now();
    await work();
    least = Math.min(least, performance.now() - t);
  }
  return least / 1000;
}

/** Bytes a second of reading, by the backend's own sum over 256 MiB. */
async function bandwidth(be: Backend): Promise<number> {
  const bytes = 256 * 1048576, handle = be.alloc(bytes + 256);
  const big = { handle, byteOffset: 256, dtype: "f32", shape: [bytes / 4] } as const;
  const out = { handle, byteOffset: 0, dtype: "f32", shape: [1] } as const;
  be.fill(big, 1);
  const seconds = await best(5, () => be.sumSquares(out, big));
  be.free(handle);
  return bytes / seconds;
}

/** The backend with the time of each operation added up. */
function timed(be: Backend, spent: Map<string, number>): Backend {
  return new Proxy(be, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        const t = performance.now(), result = value.apply(target, args);
        spent.set(String(name), (spent.get(String(name)) ?? 0) + performance.now() - t);
        return result;
      };
    },
  });
}

const row = (name: string, ...cells: (string | number)[]) =>
  console.log(`| ${[name.padEnd(22), ...cells.map((c) => String(c).padStart(12))].join(" | ")} |`);

const be = await createWasmBackend({ threads });
const rate = await bandwidth(be);
const source = openModel(path), spent = new Map<string, number>();
const model = await loadModel(source, { backend: timed(be, spent), maxLength: 512 });
source.close();
// A token reads every weight but the embedding table's other rows; a tied table is the head's weight too.
const weights = [...model.weights].filter(([name]) => name !== "embed" || model.config.tied).map(([, t]) => t);
const bytes = weights.reduce((n, t) => n + bytesOf(t.dtype, numel(t)), 0);
const runner = new DecoderRunner(model, { slots: 4, contextLength: 512, stepTokens: AT });

const step = (slots: number, pos: number, count: number) => {
  const n = slots * count;
  return runner.forward({
    ids: Int32Array.from({ length: n }, (_, i) => 100 + (i * 7919) % 1000),
    pos: Int32Array.from({ length: n }, (_, i) => pos + i % count),
    seq: Int32Array.from({ length: n }, (_, i) => Math.floor(i / count)),
    rows: Int32Array.from({ length: slots }, (_, s) => (s + 1) * count - 1),
  });
};

console.log(`${be.device}; ${path.split(/[\\/]/).at(-1)}`);
console.log(`${(bytes / 1e6).toFixed(1)} MB of weights a step; memory read at ${(rate / 1e9).toFixed(1)} GB/s\n`);
row("", "tokens/s", "ms a step", "ceiling t/s", "% of it");
row("-".repeat(22), ...Array.from({ length: 4 }, () => "-".repeat(12)));
for (const count of [32, 128, AT]) {
  const seconds = await best(2, () => step(1, 0, count));
  row(`prefill of ${count}`, (count / seconds).toFixed(1), (1000 * seconds).toFixed(1), "", "");
}
for (let slot = 0; slot < 4; slot++) await step(4, AT - 64, 64);
for (const slots of [1, 2, 4]) {
  spent.clear();
  const seconds = await best(REPEAT, () => step(slots, AT, 1)), ceiling = slots * rate / bytes;
  const share = (100 * slots / seconds / ceiling).toFixed(0);
  row(`decode, ${slots} at once`, (slots / seconds).toFixed(1), (1000 * seconds).toFixed(1), ceiling.toFixed(1), share);
  if (slots > 1) continue;
  const total = [...spent.values()].reduce((a, b) => a + b, 0);
  const parts = [...spent].sort((a, b) => b[1] - a[1]).slice(0, 6);
  process.on("exit", () => {
    console.log(`\none token: ${parts.map(([op, ms]) => `${op} ${(100 * ms / total).toFixed(0)} %`).join(", ")}`);
  });
}
runner.close();
model.close();
be.close();
