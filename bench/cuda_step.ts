/**
 * How fast is a LoRA step on the GPU? Llama-3.2-3B's shape with random weights, r = 16 on all seven linears, bf16, packed
 * sequences of 2048 tokens. The ceiling is that of the same run of bench/cuda_peers.py: GEMMs, attention, memory passes.
 *
 *   deno run -A bench/cuda_step.ts [--batch 4] [--checkpoint none|full|offload|selective] [--budget 16] [--steps 8]
 *     [--layers 28] [--chunk 1024] [--fp8] [--profile] [--model DIR]
 *
 * --checkpoint: what stays of the blocks between the passes; --budget: GiB that `selective` may take; --offload: it moves the
 * blocks' inputs to the host.
 * --model: where the random model is written (6.4 GB) or was written before; --profile: steps without a graph, and a table of
 * the last one's launches.
 * @module
 */
import { closeSync, existsSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { candidate } from "../cuda/mod.ts";
import { openLibrary } from "../ffi/library.ts";
import type { Backend } from "../src/core/backend.ts";
import { Random } from "../src/core/philox.ts";
import type { Batch } from "../src/data/types.ts";
import { loadModel, openModel, roundSource } from "../src/models/mod.ts";
import { type CheckpointMode, chooseCheckpointing } from "../src/train/checkpointing.ts";
import { createOptimizer } from "../src/train/optimizers.ts";
import { Stepper } from "../src/train/step.ts";
import type { OptimOptions } from "../src/train/types.ts";
import { llamaConfig, LORA, memoryLine } from "./llama_3b.ts";

const { values: flags } = parseArgs({
  options: {
    batch: { type: "string", default: "4" },
    length: { type: "string", default: "2048" },
    layers: { type: "string", default: "28" },
    steps: { type: "string", default: "8" },
    chunk: { type: "string", default: "1024" },
    checkpoint: { type: "string", default: "none" },
    budget: { type: "string", default: "16" },
    offload: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    fp8: { type: "boolean", default: false },
    model: { type: "string", default: "/tmp/llama-3b-shape" },
  },
});
const LENGTH = Number(flags.length), BATCH = Number(flags.batch), STEPS = Number(flags.steps);

const CONFIG = llamaConfig(Number(flags.layers));

/** Normal numbers of size 0.02 as bf16, one block of 4M laid end to end. */
function randomBlock(): Uint16Array {
  const r = new Random(1), f = new Float32Array(1 << 22), bits = new Uint32Array(f.buffer);
  for (let i = 0; i < f.length; i++) {
    f[i] = i < 1 << 16 ? 0.02 * r.normal() : f[(i * 2654435761 >>> 8) & 0xffff] * (i & 1 ? 1 : -1);
  }
  return Uint16Array.from(bits, (b) => b >>> 16);
}

/** Writes config.json and model.safetensors; norms are ones. */
function writeModel(dir: string): void {
  const D = CONFIG.hidden_size, F = CONFIG.intermediate_size, q = 24 * 128, kv = 8 * 128;
  const shapes: [string, number[]][] = [["model.embed_tokens.weight", [CONFIG.vocab_size, D]]];
  for (let n = 0; n < CONFIG.num_hidden_layers; n++) {
    const at = (s: string) => `model.layers.${n}.${s}.weight`;
    shapes.push([at("input_layernorm"), [D]], [at("post_attention_layernorm"), [D]]);
    shapes.push([at("self_attn.q_proj"), [q, D]], [at("self_attn.k_proj"), [kv, D]], [at("self_attn.v_proj"), [kv, D]]);
    shapes.push([at("self_attn.o_proj"), [D, q]], [at("mlp.gate_proj"), [F, D]], [at("mlp.up_proj"), [F, D]]);
    shapes.push([at("mlp.down_proj"), [D, F]]);
  }
  shapes.push(["model.norm.weight", [D]]);
  let at = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: "BF16", shape, data_offsets: [at, at += bytes] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(32);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  mkdirSync(dir, { recursive: true });
  const draft = join(dir, "draft"), file = openSync(draft, "w"), block = new Uint8Array(randomBlock().buffer);
  const ones = new Uint8Array(Uint16Array.from({ length: D }, () => 0x3f80).buffer);
  writeSync(file, head);
  for (const [, shape] of shapes) {
    let left = 2 * shape.reduce((a, b) => a * b);
    while (left > 0) left -= writeSync(file, shape.length === 1 ? ones : block, 0, Math.min(left, block.length));
  }
  closeSync(file);
  writeFileSync(join(dir, "config.json"), JSON.stringify(CONFIG));
  renameSync(draft, join(dir, "model.safetensors"));
}

function randomBatch(): Batch {
  const n = BATCH * LENGTH, ids = Int32Array.from({ length: n }, (_, i) => (i * 7919 + 13) % CONFIG.vocab_size);
  return {
    ids,
    pos: ids.map((_, i) => i % LENGTH),
    targets: ids.map((_, i) => ids[(i + 1) % n]),
    weights: Float32Array.from(ids, (_, i) => (i + 1) % LENGTH === 0 ? 0 : 1),
    cu: Int32Array.from({ length: BATCH + 1 }, (_, i) => i * LENGTH),
  };
}

/** The library's own account of launches (cuda/host/profile.cpp). */
async function openProfile(): Promise<{ start(): void; print(): void }> {
  const path = fileURLToPath(new URL("../cuda/prebuilt/linux-x64/libunsloth_cuda.so", import.meta.url));
  const { fn } = await openLibrary(
    path,
    { us_profile_start: { args: [], ret: "i32" }, us_profile_stop: { args: ["buf", "u32"], ret: "u32" } } as const,
  );
  return {
    start: () => void fn.us_profile_start(),
    print(): void {
      const text = new Uint8Array(16384), n = fn.us_profile_stop(text, text.length);
      const rows = new TextDecoder().decode(text.subarray(0, n)).trim().split("\n").map((l) => l.split("\t"));
      const total = rows.reduce((sum, r) => sum + Number(r[2]), 0);
      for (const [name, calls, ms] of rows.sort((a, b) => Number(b[2]) - Number(a[2]))) {
        const share = (100 * Number(ms) / total).toFixed(1);
        console.log(
          `ROW ${name.padEnd(24)} ${calls.padStart(5)} ${Number(ms).toFixed(2).padStart(8)} ms ${share.padStart(5)} %`,
        );
      }
      console.log(`ROW ${"all launches".padEnd(24)} ${" ".repeat(5)} ${total.toFixed(2).padStart(8)} ms`);
    },
  };
}

const started = performance.now(), seconds = () => ((performance.now() - started) / 1000).toFixed(2);
const dir = `${flags.model}-${flags.layers}`;
if (!existsSync(join(dir, "model.safetensors"))) {
  writeModel(dir);
  console.log(`ROW wrote ${dir} at ${seconds()} s`);
}
const opening = performance.now();
let be: Backend = await candidate.open({});
console.log(`ROW ${be.device}, opened in ${((performance.now() - opening) / 1000).toFixed(2)} s`);
if (flags.profile) be = new Proxy(be, { get: (t, k) => k === "capture" ? () => null : bound(t, k) });
function bound(t: Backend, k: string | symbol): unknown {
  const v = Reflect.get(t, k, t);
  return typeof v === "function" ? v.bind(t) : v;
}

const source = flags.fp8 ? roundSource(openModel(dir)) : openModel(dir), GIB = 2 ** 30;
const optim: OptimOptions = {
  ...{ name: "adamw_torch", lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: STEPS },
};
const pass = {
  ...{ maxTokens: BATCH * LENGTH, maxSequences: BATCH, maxLength: LENGTH, chunk: Number(flags.chunk) },
};
const planned = chooseCheckpointing(source, be, {
  ...{ mode: flags.checkpoint as CheckpointMode, budget: Number(flags.budget) * GIB, lora: LORA, pass, optim },
  ...flags.offload ? { offload: true } : {},
});
console.log(`ROW planned ${memoryLine(planned)}`);
const loading = performance.now();
const model = await loadModel(source, {
  ...{ backend: be, lora: LORA, checkpoint: planned.checkpoint, maxLength: LENGTH },
});
await be.fence();
const loadSeconds = (performance.now() - loading) / 1000;
console.log(`ROW loaded in ${loadSeconds.toFixed(2)} s, ${(6.43 / loadSeconds).toFixed(1)} GB/s`);
const random = new Random(2);
for (const p of model.params!.list) {
  if (!p.name.includes("lora_B")) continue;
  be.upload(
    p.value,
    Float32Array.from({ length: p.value.shape[0] * p.value.shape[1] }, () => 0.02 * (random.uniform() - 0.5)),
  );
}
const optimizer = createOptimizer(be, model.params!, optim), stepper = new Stepper(model, optimizer, pass);
const batch = randomBatch(), times: number[] = [], losses: number[] = [];
let staged = stepper.stage([batch]);
const profile = flags.profile ? await openProfile() : null;
for (let t = 1; t <= STEPS; t++) {
  if (t === STEPS) profile?.start();
  const from = performance.now();
  // as in training, the next step's batch is laid out while the device works
  const r = await stepper.step(staged, { lr: 2e-4, t }, () => {
    staged = stepper.stage([batch]);
  });
  times.push(performance.now() - from);
  losses.push(r.loss);
  if (t === 1) console.log(`ROW first step ends ${((performance.now() - opening) / 1000).toFixed(2)} s after opening`);
}
profile?.print();
const { active, peak } = be.memory(),
  best = Math.min(...times.slice(2)),
  sorted = times.slice(2).sort((a, b) => a - b);
const median = sorted[sorted.length >> 1];
console.log(`ROW losses ${losses.map((l) => l.toFixed(4)).join(" ")}`);
console.log(`ROW steps ms ${times.map((t) => t.toFixed(1)).join(" ")}`);
console.log(
  `ROW batch ${BATCH} x ${LENGTH}, checkpointing ${flags.checkpoint}: median ${median.toFixed(1)} ms, best ${
    best.toFixed(1)
  } ms, ` +
    `${(BATCH * LENGTH / median * 1000).toFixed(0)} tokens/s; peak ${(peak / GIB).toFixed(2)} GiB, active ${
      (active / GIB).toFixed(2)
    }, ` +
    `arena ${(stepper.pass.arena.peakBytes / GIB).toFixed(2)}, planned ${(planned.memory.total / GIB).toFixed(2)} ` +
    `(measured ${(100 * (peak / planned.memory.total - 1)).toFixed(1)} % over)`,
);
stepper.close();
optimizer.close();
model.close();
source.close();
be.close();
process.exit(0);
