/**
 * How near do products come to what 128-bit units can do? Every shape of a LoRA step of SmolLM2-135M (512 tokens, r = 16)
 * and 1024³, from f32 and from blocks, on one thread and on two. The ceiling is measured in the same process: twelve
 * independent chains of relaxed_madd, and of mul and add, that touch no memory.
 *
 *   deno run -A bench/gemm.ts [--threads 1,2] [--only head] [--seconds 0.4] [--peak 64]     (bun and node alike)
 *
 * One thread is timed by the process's CPU time, which other work on the machine disturbs less; more threads by the clock.
 * --peak: the FMA peak in GFLOP/s where the engine cannot show it (JavaScriptCore does not fuse). onnxruntime-web and
 * tfjs-wasm run beside ours when they are installed: `cd bench/peers && npm i`.
 * @module
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Backend, MatmulOpts } from "../src/core/backend.ts";
import { bytesOf, type DType } from "../src/core/dtype.ts";
import { Random } from "../src/core/philox.ts";
import type { Tensor } from "../src/core/tensor.ts";
import { compile } from "../wasm/build.ts";
import { VARIANTS } from "../wasm/micro_kernel.ts";
import { createWasmBackend } from "../wasm/mod.ts";
import { fusesMultiplyAdd } from "../wasm/probe.ts";

/** What a row of the table multiplies: c [M,N] = op(a) · op(b). */
interface Shape {
  name: string;
  size: [M: number, N: number, K: number];
  b: DType;
  o: MatmulOpts;
}

const forward: MatmulOpts = { transB: true }, add: MatmulOpts = { beta: 1 };
const SHAPES: Shape[] = [
  { name: "1024³", size: [1024, 1024, 1024], b: "f32", o: {} },
  { name: "1024³, b transposed", size: [1024, 1024, 1024], b: "f32", o: forward },
  ...(["f32", "bf16", "q4_0", "q4_1", "q8_0"] as const).map((b): Shape => {
    return { name: "gate, up", size: [512, 1536, 576], b, o: forward };
  }),
  { name: "q, o", size: [512, 576, 576], b: "q4_1", o: forward },
  { name: "k, v", size: [512, 192, 576], b: "q4_1", o: forward },
  { name: "down", size: [512, 576, 1536], b: "q4_1", o: forward },
  { name: "head, 171 rows", size: [171, 49152, 576], b: "q8_0", o: forward },
  { name: "gate, up: input gradient", size: [512, 576, 1536], b: "q4_1", o: add },
  { name: "down: input gradient", size: [512, 1536, 576], b: "q4_1", o: {} },
  { name: "k, v: input gradient", size: [512, 576, 192], b: "q4_1", o: add },
  { name: "head: input gradient", size: [171, 576, 49152], b: "q8_0", o: {} },
  { name: "x·Aᵀ, r 16", size: [512, 16, 576], b: "f32", o: forward },
  { name: "xa·Bᵀ, r 16", size: [512, 1536, 16], b: "f32", o: { transB: true, beta: 1 } },
  { name: "dy·B, r 16", size: [512, 16, 1536], b: "f32", o: {} },
  { name: "dA, r 16", size: [16, 576, 512], b: "f32", o: { transA: true, beta: 1 } },
  { name: "dB, r 16", size: [1536, 16, 512], b: "f32", o: { transA: true, beta: 1 } },
  { name: "full dW", size: [1536, 576, 512], b: "f32", o: { transA: true, beta: 1 } },
  ...(["f32", "bf16", "q4_0", "q4_1", "q8_0", "q4_k", "q6_k"] as const).map((b): Shape => {
    return { name: "one token", size: [1, 4096, 1536], b, o: forward };
  }),
];

/** Milliseconds of the clock, or of this process's CPU. */
function now(cpu: boolean): number {
  if (!cpu) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Best milliseconds of a call, repeated for `seconds`; a sample is at least 5 ms long. */
function best(work: () => void, seconds: number, cpu: boolean): number {
  work();
  const first = now(cpu);
  work();
  const calls = Math.max(1, Math.ceil(5 / Math.max(0.01, now(cpu) - first)));
  let least = Infinity;
  for (const end = performance.now() + 1000 * seconds; performance.now() < end || least === Infinity;) {
    const start = now(cpu);
    for (let i = 0; i < calls; i++) work();
    least = Math.min(least, (now(cpu) - start) / calls);
  }
  return least;
}

const CHAINS = 12;

/** GFLOP/s of chains of one variant's multiply-add. */
async function peakOf(fused: boolean): Promise<number> {
  const names = Array.from({ length: CHAINS }, (_, i) => `c${i}`);
  const entry = [
    'import { madd } from "./micro";',
    "export function run(n: i32, x: f32, y: f32): f32 {",
    "  const a = f32x4.splat(x), b = f32x4.splat(y);",
    ...names.map((c, i) => `  let ${c} = f32x4.splat(<f32>${i});`),
    `  for (; n > 0; --n) { ${names.map((c) => `${c} = madd(${c}, a, b);`).join(" ")} }`,
    `  return f32x4.extract_lane(${names.reduce((s, c) => `f32x4.add(${s}, ${c})`)}, 0);`,
    "}",
  ].join("\n");
  const module = await WebAssembly.compile(
    await compile(VARIANTS.find((v) => v.fused === fused)!, entry) as BufferSource,
  );
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  const { run } = (await WebAssembly.instantiate(module, { env: { memory } })).exports;
  const steps = 500_000, call = run as (n: number, x: number, y: number) => number;
  return CHAINS * 8 * steps / best(() => call(steps, 0.999, 1e-7), 1, true) / 1e6;
}

/** A tensor of normal numbers, or of random blocks with small scales: bytes under 64 make finite halves. */
function tensor(be: Backend, dtype: DType, ...shape: number[]): Tensor {
  const n = shape.reduce((a, b) => a * b), r = new Random(n);
  const t = { handle: be.alloc(bytesOf(dtype, n)), byteOffset: 0, dtype, shape };
  be.upload(
    t,
    dtype === "f32"
      ? new Float32Array(n).map(() => r.uniform() - 0.5)
      : new Uint8Array(bytesOf(dtype, n)).map(() => 0x20 + (r.below(24))),
  );
  return t;
}

function measure(be: Backend, s: Shape, seconds: number, cpu: boolean): number {
  const [M, N, K] = s.size;
  const a = s.o.transA ? tensor(be, "f32", K, M) : tensor(be, "f32", M, K);
  const b = s.o.transB ? tensor(be, s.b, N, K) : tensor(be, s.b, K, N), c = tensor(be, "f32", M, N);
  const ms = best(() => be.matmul(c, a, b, null, s.o), seconds, cpu);
  for (const t of [a, b, c]) be.free(t.handle);
  return ms;
}

function line(name: string, size: string, type: string, ms: number, flops: number, ceiling: number): void {
  const rate = flops / ms / 1e6, share = `${(100 * rate / ceiling).toFixed(0)} %`;
  const cells = [name.padEnd(26), size.padEnd(16), type.padEnd(6), `${(1000 * ms).toFixed(0)} us`.padStart(11)];
  console.log([...cells, `${rate.toFixed(1)} GFLOP/s`.padStart(15), share.padStart(6)].join(" "));
}

/** The other libraries at 1024³, each in a process of its own on the same runtime. */
function runPeers(threads: number, ceiling: number): void {
  const folder = new URL("peers/", import.meta.url), size = 1024;
  if (!existsSync(new URL("node_modules", folder))) {
    return console.log("peers: not installed (cd bench/peers && npm i)");
  }
  const start = "Deno" in globalThis ? ["run", "-A"] : [];
  for (const library of ["onnx", "tfjs"]) {
    const args = [...start, "matmul.mjs", library, String(size), String(threads)];
    const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: fileURLToPath(folder), encoding: "utf8" });
    try {
      const { version, ms } = JSON.parse(stdout.trim().split("\n").at(-1)!);
      line(`${library} ${version}`, "1024x1024x1024", "f32", ms, 2 * size ** 3, ceiling);
    } catch {
      console.log(`${library}: ${stderr.trim().split("\n").at(-1)}`);
    }
  }
}

async function main(): Promise<void> {
  const { values: o } = parseArgs({
    args: process.argv.slice(2),
    options: {
      threads: { type: "string", default: "1,2" },
      only: { type: "string", default: "" },
      seconds: { type: "string", default: "0.4" },
      peak: { type: "string" },
    },
  });
  const fused = await peakOf(true), plain = await peakOf(false);
  const ceiling = o.peak ? Number(o.peak) : Math.max(fused, plain);
  console.log(
    `relaxed_madd ${fused.toFixed(1)} GFLOP/s (fused: ${fusesMultiplyAdd()}), mul and add ${plain.toFixed(1)}`,
  );
  console.log(`ceiling of a thread: ${ceiling.toFixed(1)} GFLOP/s`);
  for (const threads of o.threads.split(",").map(Number)) {
    const be = await createWasmBackend({ threads });
    console.log(`\n${be.device}`);
    for (const s of SHAPES.filter((s) => s.name.includes(o.only))) {
      const ms = measure(be, s, Number(o.seconds), threads === 1), [M, N, K] = s.size;
      line(s.name, `${M}x${N}x${K}`, s.b, ms, 2 * M * N * K, ceiling * threads);
    }
    be.close();
    if (!o.only) runPeers(threads, ceiling * threads);
  }
}

await main();
