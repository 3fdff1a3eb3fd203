/**
 * What do TypeScript and FFI take for a training step and for a token, when no graph is replayed? SmolLM2-135M with adapters
 * on a library whose functions do nothing: what is left is the model's walk, checks, structs and calls. A device that is done
 * sooner waits for this. Ceiling: as many calls alone.
 *
 *   deno run -A bench/host_calls.ts [--model ../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf]      (needs gcc)
 * @module
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { ABI_VERSION, OP_NAMES, opEntry, symbolOf } from "../ffi/abi.ts";
import { BASE, type Signature, STATUS } from "../ffi/abi_base.ts";
import { openNative } from "../ffi/adapter.ts";
import { openLibrary } from "../ffi/library.ts";
import type { Batch } from "../src/data/types.ts";
import { DecoderRunner } from "../src/infer/runner.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { createOptimizer } from "../src/train/optimizers.ts";
import { Stepper } from "../src/train/step.ts";
import { LORA } from "./llama_3b.ts";
import { median } from "./meter.ts";

/** Functions that must answer something; the others are counted and answer 0, which is "done". */
const ANSWERS: Readonly<Record<string, string>> = {
  us_abi_version: `return ${ABI_VERSION};`,
  us_ops: "for (n = 0; ops[n]; n++) if (n < a1) ((char*)a0)[n] = ops[n]; if (n < a1) ((char*)a0)[n] = 0; return n;",
  us_device_count: "return calls;",
  us_act_dtype: "return 1;",
  us_supports: "return 1;",
  us_alloc: "((unsigned*)a0)[2] = ++n; return 0;",
  us_graph_begin: `return ${STATUS.unsupported};`,
  us_memory: "for (int i = 0; i < 6; i++) ((unsigned*)a0)[i] = i == 5 ? 100 : 0; return 0;",
};

/** A library of the whole ABI in which nothing happens. */
function buildIdle(folder: string): string {
  const operation: Signature = { args: ["buf"], ret: "i32" };
  const functions = { ...BASE, ...Object.fromEntries(OP_NAMES.map((op) => [symbolOf(op), operation])) };
  const source = Object.entries<Signature>(functions).map(([name, { args }]) => {
    const list = args.map((a, i) => `${a === "buf" ? "void*" : "unsigned"} a${i}`).join(", ") || "void";
    return `int ${name}(${list}) { ${ANSWERS[name] ?? "calls++; return 0;"} }`;
  });
  const c = join(folder, "idle.c"), out = join(folder, "idle.so");
  writeFileSync(
    c,
    [`static unsigned n, calls; static const char* ops = "${OP_NAMES.map(opEntry).join(" ")}";`, ...source].join("\n"),
  );
  execFileSync("gcc", ["-O2", "-w", "-shared", "-fPIC", "-o", out, c]);
  return out;
}

/** Prints the median of `count` runs after as many that are not counted, and what their calls would take alone. */
async function time(name: string, count: number, run: (i: number) => Promise<unknown>): Promise<void> {
  const times: number[] = [], before = bare.fn.us_device_count();
  for (let i = 0; i < 2 * count; i++) {
    const start = performance.now();
    await run(i);
    times.push(performance.now() - start);
  }
  const calls = (bare.fn.us_device_count() - before) / (2 * count), ms = median(times.slice(count));
  const start = performance.now(), words = new Uint32Array(64);
  for (let i = 0; i < 100 * calls; i++) bare.fn.us_fill(words);
  const alone = (performance.now() - start) / 100;
  const each = (1000 * ms / calls).toFixed(2);
  console.log(
    `${name} ${ms.toFixed(2)} ms, ${calls.toFixed(0)} calls of ${each} us; the calls alone ${alone.toFixed(3)} ms`,
  );
}

const { values: o } = parseArgs({
  args: process.argv.slice(2),
  options: { model: { type: "string", default: "../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf" } },
});
const folder = mkdtempSync(join(tmpdir(), "host-calls-"));
const path = buildIdle(folder), be = await openNative({ name: "cuda", path }), source = openModel(o.model);
const bare = await openLibrary(path, { us_fill: BASE.us_fill, us_device_count: BASE.us_device_count });
const model = await loadModel(source, {
  ...{ backend: be, checkpoint: false, maxLength: 512 },
  lora: LORA,
});
const optimizer = createOptimizer(be, model.params!, {
  ...{ name: "adamw_torch", lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: 100 },
});
const stepper = new Stepper(model, optimizer, { maxTokens: 512, maxSequences: 1, maxLength: 512 });
const ids = Int32Array.from({ length: 512 }, (_, i) => i + 5);
const batch: Batch = {
  ids,
  targets: ids,
  weights: new Float32Array(512).fill(1),
  pos: ids.map((_, i) => i),
  cu: Int32Array.of(0, 512),
};
const runner = new DecoderRunner(model, { slots: 1, contextLength: 512, stepTokens: 64 });
const one = (x: number): Int32Array => Int32Array.of(x);
await time("a step", 100, (i) => stepper.step([batch], { lr: 1e-4, t: i + 1 }));
await time("a token", 200, (i) => runner.forward({ ids: one(5), pos: one(i), seq: one(0), rows: one(0) }));
bare.close();
rmSync(folder, { recursive: true });
process.exit(0);
