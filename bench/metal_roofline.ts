/**
 * What each Metal kernel must move and compute in a LoRA step of Llama-3.2-3B, and the least time that takes on Apple's
 * chips: `deno run bench/metal_roofline.ts [tokens]`. Paper, not measurement: `unsloth doctor --metal` on a Mac gives the
 * milliseconds to hold against it.
 *
 * Peaks: 128 f32 multiply-adds a core and cycle, the same in f16 on M1 and M2 (philipturner/metal-benchmarks), clocks of
 * 1.28 (M1) to 1.6 GHz; memory bandwidth as Apple states it. simdgroup matrices use the same lanes: 80 % is what they reach
 * inside a matrix product there, and 60 % of the peak is our target for a whole step.
 */
import process from "node:process";

interface Chip {
  readonly name: string;
  readonly tflops: number;
  readonly gbs: number;
}
const CHIPS: readonly Chip[] = [
  { name: "M1 8", tflops: 2.6, gbs: 68 },
  { name: "M1 Max 32", tflops: 10.6, gbs: 400 },
  { name: "M2 Max 38", tflops: 13.6, gbs: 400 },
  { name: "M3 10", tflops: 3.6, gbs: 100 },
  { name: "M3 Max 40", tflops: 14.3, gbs: 400 },
  { name: "M4 10", tflops: 3.8, gbs: 120 },
  { name: "M4 Max 40", tflops: 16.2, gbs: 546 },
];
/** Llama-3.2-3B: layers, width, feed-forward, query and kv heads, head size, vocabulary; LoRA rank 16 on all seven linears. */
const MODEL = { layers: 28, D: 3072, F: 8192, H: 24, K: 8, d: 128, V: 128256, R: 16 };
/** Bytes of an activation (f16 or bf16) and of a weight element in q4_k. */
const ACT = 2, WEIGHT = 144 / 256;

/** One kernel over a whole step. Threadgroup bytes as in the .metal file; registers: 32-bit words a thread that it keeps. */
interface Row {
  readonly kernel: string;
  readonly launches: number;
  readonly flop: number;
  readonly bytes: number;
  readonly threadgroup: number;
  readonly registers: number;
}

/** The kernels of one step over N tokens, without recomputation. */
export function stepRows(N: number): Row[] {
  const { layers: L, D, F, H, K, d, V, R } = MODEL, q = H * d, kv = K * d;
  const linears = [[q, D], [kv, D], [kv, D], [D, q], [F, D], [F, D], [D, F]];
  const weights = linears.reduce((n, [o, i]) => n + o * i, 0), sides = linears.reduce((n, [o, i]) => n + o + i, 0);
  // per product: a, c and b once; the tiles read a and b again from the cache
  const gemmBytes = (times: number): number => times * L * (weights * WEIGHT + N * sides * ACT);
  const pairs = N * N / 2, parts = Math.floor(Math.min(D / 512, 128 / Math.ceil(N / 32), 16));
  return [
    // forward and input gradient: 2 MNK each; 64x64 tile of halves: 10 KiB in, 8 KiB out; 16 accumulators of 2 words, 8 fragments
    {
      kernel: "gemm, weights",
      launches: 14 * L,
      flop: 4 * N * L * weights,
      bytes: gemmBytes(2),
      threadgroup: 10240,
      registers: 40,
    },
    // the three products of each adapter pass (forward, dx, gradients) meet every side once with rank R: 2 N R each; x A^T and
    // dy B are split along the inner axis where they would be fewer than 128 threadgroups, and the f32 parts added
    {
      kernel: "gemm, adapters",
      launches: (42 + (parts > 1 ? 14 : 0)) * L,
      flop: 6 * N * R * L * sides,
      bytes: 3 * L * N * sides * ACT + (parts > 1 ? 14 * L * N * R * 8 * parts : 0),
      threadgroup: 5120,
      registers: 12,
    },
    {
      kernel: "gemm, head",
      launches: 2,
      flop: 4 * N * D * V,
      bytes: 2 * (D * V * WEIGHT + N * V * ACT),
      threadgroup: 10240,
      registers: 40,
    },
    {
      kernel: "attention",
      launches: L,
      flop: 4 * pairs * q * L,
      bytes: L * N * (2 * q + 2 * kv) * ACT,
      threadgroup: 21504,
      registers: 44,
    },
    {
      kernel: "attention_bwd",
      launches: 3 * L,
      flop: 14 * pairs * q * L,
      bytes: L * N * (8 * q + 6 * kv) * ACT,
      threadgroup: 31232,
      registers: 76,
    },
    {
      kernel: "norm",
      launches: 2 * L + 1,
      flop: 4 * N * D * (2 * L + 1),
      bytes: (2 * L + 1) * 2 * N * D * ACT,
      threadgroup: 128,
      registers: 12,
    },
    {
      kernel: "norm_bwd",
      launches: 2 * L + 1,
      flop: 8 * N * D * (2 * L + 1),
      bytes: (2 * L + 1) * 4 * N * D * ACT,
      threadgroup: 128,
      registers: 20,
    },
    {
      kernel: "rope",
      launches: 4 * L,
      flop: 6 * N * (q + kv) * L * 2,
      bytes: 4 * L * N * (q + kv) * ACT,
      threadgroup: 0,
      registers: 8,
    },
    { kernel: "glu", launches: L, flop: 8 * N * F * L, bytes: 3 * L * N * F * ACT, threadgroup: 0, registers: 12 },
    { kernel: "glu_bwd", launches: L, flop: 16 * N * F * L, bytes: 6 * L * N * F * ACT, threadgroup: 0, registers: 24 },
    { kernel: "add", launches: 2 * L, flop: N * D * L * 2, bytes: 6 * L * N * D * ACT, threadgroup: 0, registers: 8 },
    { kernel: "cross_entropy", launches: 1, flop: 12 * N * V, bytes: 3 * N * V * ACT, threadgroup: 128, registers: 12 },
    {
      kernel: "adamw",
      launches: 14 * L,
      flop: 12 * R * sides * L,
      bytes: 28 * R * sides * L,
      threadgroup: 0,
      registers: 10,
    },
  ];
}

/** Least milliseconds of a row on a chip: its arithmetic or its memory, whichever takes longer. */
export function floorOf(row: Row, chip: Chip): number {
  return Math.max(row.flop / chip.tflops, row.bytes / chip.gbs * 1000) / 1e9;
}

function main(): void {
  const N = Number(process.argv[2] ?? 2048), rows = stepRows(N);
  const head = CHIPS.map((c) => c.name.padStart(10)).join("");
  console.log(`A LoRA step of Llama-3.2-3B in q4_k over ${N} tokens; least milliseconds a chip`);
  console.log(`${"kernel".padEnd(16)} launches    GFLOP       MB  FLOP/B  tg KiB  regs ${head}`);
  for (const r of rows) {
    const cells = [
      r.kernel.padEnd(16),
      String(r.launches).padStart(8),
      (r.flop / 1e9).toFixed(1).padStart(8),
      (r.bytes / 1e6).toFixed(0).padStart(8),
      (r.flop / r.bytes).toFixed(1).padStart(7),
      (r.threadgroup / 1024).toFixed(1).padStart(7),
      String(r.registers).padStart(5),
    ];
    console.log(cells.join(" ") + " " + CHIPS.map((c) => floorOf(r, c).toFixed(1).padStart(10)).join(""));
  }
  const total = (c: Chip): number => rows.reduce((ms, r) => ms + floorOf(r, c), 0);
  const line = (name: string, of: (c: Chip) => number): void => {
    console.log(name.padEnd(63) + CHIPS.map((c) => of(c).toFixed(0).padStart(10)).join(""));
  };
  line("the step, ms", total);
  line("tokens/s at the peak", (c) => N / total(c) * 1000);
  line("tokens/s at 60 %, the target", (c) => 0.6 * N / total(c) * 1000);
  console.log("Published for Unsloth's MLX branch on an M3: 117.2 tokens/s");
}

if (import.meta.main) main();
