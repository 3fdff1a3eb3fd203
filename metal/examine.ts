/**
 * What `doctor --metal` does on a user's Mac: every kernel compiled, every operation compared with the CPU backend in each
 * activation type, and the speeds that no Linux test can show, as one report to send.
 * @module
 */
import { availableParallelism, release } from "node:os";
import process from "node:process";
import type { OpenOpts } from "../ffi/select.ts";
import type { Backend } from "../src/core/backend.ts";
import { bytesOf, type Dense, type DType, DTYPES, isQuant } from "../src/core/dtype.ts";
import { Random } from "../src/core/philox.ts";
import { numel, type Tensor } from "../src/core/tensor.ts";
import { type Call, CALLS, type Operand } from "./calls.ts";
import { readFile, readSubnormals } from "./machine.ts";
import { measure } from "./measure.ts";

/** What the examination needs. */
export interface ExamineOpts {
  /** Opens Metal with an activation type. */
  open(o: OpenOpts): Promise<Backend>;
  /** An exact backend of f32 to compare with: the CPU's. */
  readonly against: Backend;
  /** Gets the report, line by line. */
  readonly log: (line: string) => void;
  /** False: no benchmark (it takes a minute on a GPU, and hours on a simulator). */
  readonly speed: boolean;
}

/**
 * Largest ‖got - want‖ / ‖want‖. GPUs round exp and division a few ulp off; bf16 keeps 8 bits and f16 11, and the kernels
 * round once more inside (weights in the tile, probabilities).
 */
const TOLERANCE: Readonly<Record<string, number>> = { f32: 2e-5, bf16: 1.5e-2, f16: 2e-3 };

/** Bytes of random blocks: any bits, with f16 scales near 0.001 (f32 0.1 in nf4) where a block keeps them. */
function randomBlocks(dtype: DType, count: number, random: Random): Uint8Array {
  const bytes = new Uint8Array(bytesOf(dtype, count)).map(() => random.below(dtype === "fp8_e4m3" ? 112 : 256));
  const width = DTYPES[dtype].bytes, view = new DataView(bytes.buffer);
  const scales: Partial<Record<DType, number[]>> = { q2_k: [80, 82], q3_k: [108], q6_k: [208], nf4: [], fp8_e4m3: [] };
  const two = ["q4_1", "q5_1", "q4_k", "q5_k"].includes(dtype);
  for (let at = 0; at < bytes.length && dtype !== "fp8_e4m3"; at += width) {
    for (const s of scales[dtype] ?? (two ? [0, 2] : [0])) view.setUint16(at + s, 0x1400 + random.below(512), true);
    if (dtype === "nf4") view.setFloat32(at + 32, 0.1, true);
  }
  return bytes;
}

/** Random numbers of a size; negative: none near or below zero. */
function numbers(o: Operand, random: Random): Float32Array {
  if (typeof o.from !== "number") return Float32Array.from(o.from);
  const size = o.from;
  return Float32Array.from({ length: o.shape.reduce((a, b) => a * b, 1) }, () => {
    return size < 0 ? 0.5 + random.uniform() : size * random.normal();
  });
}

/** The same tensor on both backends: what the GPU's type holds, exactly, as f32 on the CPU. */
async function place(o: Operand, gpu: Backend, cpu: Backend, random: Random): Promise<[Tensor, Tensor]> {
  const on = (be: Backend, dtype: DType): Tensor => {
    return {
      handle: be.alloc(bytesOf(dtype, numel({ shape: o.shape } as Tensor))),
      byteOffset: 0,
      dtype,
      shape: o.shape,
    };
  };
  const both = (dtype: DType, bytes: ArrayBufferView): [Tensor, Tensor] => {
    const pair: [Tensor, Tensor] = [on(gpu, dtype), on(cpu, dtype)];
    gpu.upload(pair[0], bytes), cpu.upload(pair[1], bytes);
    return pair;
  };
  if (o.dtype !== "act" && (isQuant(o.dtype) || o.dtype === "fp8_e4m3")) {
    return both(o.dtype, randomBlocks(o.dtype, o.shape.reduce((a, b) => a * b, 1), random));
  }
  if (o.dtype === "i32") return both("i32", Int32Array.from(o.from as number[]));
  if (o.dtype === "u8") return both("u8", Uint8Array.from(o.from as number[]));
  const x = numbers(o, random);
  if (o.dtype !== "act" || gpu.actDtype === "f32") return both("f32", x);
  const wide = on(gpu, "f32"), t = on(gpu, gpu.actDtype), mine = on(cpu, "f32"), held = new Float32Array(x.length);
  gpu.upload(wide, x);
  gpu.copy(t, wide), gpu.copy(wide, t);
  await gpu.download(wide, held);
  gpu.free(wide.handle);
  // The conversion itself: no element may move by more than its type rounds.
  const ulp = gpu.actDtype === "bf16" ? 2 ** -8 : 2 ** -10;
  x.forEach((v, i) => {
    if (!(Math.abs(held[i] - v) <= ulp * Math.abs(v) + 1e-7)) throw new Error(`copy turned ${v} into ${held[i]}`);
  });
  cpu.upload(mine, held);
  return [t, mine];
}

async function read(be: Backend, t: Tensor): Promise<Float32Array> {
  const x = new Float32Array(numel(t));
  if (t.dtype === "f32") await be.download(t, x);
  else {
    const wide = { ...t, handle: be.alloc(x.byteLength), byteOffset: 0, dtype: "f32" as const };
    be.copy(wide, t);
    await be.download(wide, x);
    be.free(wide.handle);
  }
  return x;
}

/** Runs a call on both; returns the largest relative norm of the differences of its outputs. */
export async function compareCall(call: Call, gpu: Backend, cpu: Backend): Promise<number> {
  const random = new Random(7), left: Record<string, Tensor> = {}, right: Record<string, Tensor> = {};
  try {
    for (const [name, o] of Object.entries(call.operands)) {
      [left[name], right[name]] = await place(o, gpu, cpu, random);
    }
    call.run(gpu, left);
    call.run(cpu, right);
    let worst = 0;
    for (const [name, o] of Object.entries(call.operands)) {
      if (!o.out) continue;
      const got = await read(gpu, left[name]), want = await read(cpu, right[name]);
      let error = 0, norm = 0;
      want.forEach((w, i) => (error += (got[i] - w) ** 2, norm += w * w));
      const relative = Math.sqrt(error) / (Math.sqrt(norm) || 1);
      worst = relative <= worst ? worst : relative; // NaN wins
    }
    return worst;
  } finally {
    for (const t of Object.values(left)) gpu.free(t.handle);
    for (const t of Object.values(right)) cpu.free(t.handle);
  }
}

/** Writes the report; true when every operation agrees. */
export async function examine(o: ExamineOpts): Promise<boolean> {
  const versions = process.versions as Record<string, string | undefined>;
  const runtime = versions.deno
    ? `Deno ${versions.deno}`
    : versions.bun
    ? `Bun ${versions.bun}`
    : `Node ${versions.node}`;
  o.log("unsloth doctor --metal: please send this report, all of it");
  o.log(`${runtime}, ${process.platform} ${release()} ${process.arch}, ${availableParallelism()} cores`);
  let good = true;
  for (const actDtype of ["f32", "bf16", "f16"] as const satisfies readonly Dense[]) {
    const start = performance.now(), gpu = await o.open({ actDtype });
    try {
      if (actDtype === "f32") {
        o.log(
          `${gpu.device}; kernels compiled in ${
            (performance.now() - start).toFixed(0)
          } ms; ${gpu.memory().limit} bytes at most`,
        );
      }
      if (actDtype === "f32") {
        for (const reading of [readSubnormals, readFile]) {
          const { line, good: fine } = await reading(gpu).catch((e: Error) => ({
            line: `WRONG ${e.message}`,
            good: false,
          }));
          o.log(line);
          good &&= fine;
        }
      }
      const bad: string[] = [];
      let worst = 0;
      for (const call of CALLS) {
        const error = await compareCall(call, gpu, o.against).catch((e: Error) => e.message);
        if (typeof error === "string" || !(error <= TOLERANCE[actDtype])) bad.push(`${call.name}: ${error}`);
        else worst = Math.max(worst, error);
      }
      good &&= bad.length === 0;
      const rest = `${CALLS.length - bad.length} of ${CALLS.length} operations agree with the CPU`;
      o.log(`${actDtype.padEnd(5)} ${rest}; worst ${worst.toExponential(1)} of at most ${TOLERANCE[actDtype]}`);
      for (const line of bad) o.log(`      WRONG ${line}`);
    } finally {
      gpu.close();
    }
  }
  if (o.speed) await measure(o.open, o.log);
  o.log(
    good
      ? "Every operation is right on this machine"
      : "Some operations are wrong on this machine: do not train on it yet",
  );
  return good;
}
