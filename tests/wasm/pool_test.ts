/** Threads: a trap or a bad value in any of them is an error here and not a hang, and they end when nobody needs them. */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { BackendError } from "../../src/core/errors.ts";
import type { Backend } from "../../src/core/backend.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { base64 } from "../../wasm/kernels_mul.wasm.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { LinearMemory } from "../../wasm/memory.ts";
import { Pool, SCRATCH_BYTES } from "../../wasm/pool.ts";
import { fusesMultiplyAdd } from "../../wasm/probe.ts";
import { CONTROL } from "../../wasm/worker.ts";

/** Ends a pool's workers without its knowledge, as if they had been killed between two jobs. */
function endWorkers(memory: WebAssembly.Memory): void {
  const ctl = new Int32Array(memory.buffer, 0, 256);
  Atomics.store(ctl, CONTROL.stop, 1);
  Atomics.add(ctl, CONTROL.generation, 1);
  Atomics.notify(ctl, CONTROL.generation);
}

/** What a small job fails with; nothing when it does not. */
function failure(pool: Pool): string | undefined {
  try {
    pool.run("fill", "fill", 1, [SCRATCH_BYTES, 1, 4, 0]);
  } catch (e) {
    return (e as Error).message;
  }
}

const backends: Backend[] = [];
async function open(threads: number, kernels?: "fma" | "mul"): Promise<Backend> {
  const be = await createWasmBackend({ threads, kernels });
  backends.push(be);
  return be;
}
afterAll(() => backends.forEach((be) => be.close()));

function f32(be: Backend, values: ArrayLike<number>, ...shape: number[]): Tensor {
  const t = { handle: be.alloc(4 * values.length), byteOffset: 0, dtype: "f32" as const, shape };
  be.upload(t, Float32Array.from(values));
  return t;
}
function i32(be: Backend, ...values: number[]): Tensor {
  const t = { handle: be.alloc(4 * values.length), byteOffset: 0, dtype: "i32" as const, shape: [values.length] };
  be.upload(t, Int32Array.from(values));
  return t;
}

describe("a pool of threads", () => {
  test("turns a trap in any thread into a BackendError and works on", async () => {
    const module = await WebAssembly.compile(Buffer.from(base64, "base64")), mem = new LinearMemory(64 << 20);
    mem.reserve(SCRATCH_BYTES, Pool.bytes(4));
    const pool = await Pool.start({ kernels: module, panels: null }, mem.memory, SCRATCH_BYTES, 4), far = 0xf0000000;
    for (let i = 0; i < 20; i++) {
      expect(() => pool.run("copy", "copyBytes", 50, [far, far, 50 * 65536])).toThrow(BackendError);
      expect(() => pool.run("copy", "copyBytes", 1, [far, far, 100])).toThrow(/^Cannot run copy: .*(memory|bounds)/i);
      const t = { handle: mem.alloc(400_000), byteOffset: 0, dtype: "f32" as const, shape: [100_000] };
      pool.run("fill", "fill", 7, [mem.at(t), 100_000, 4, 0x40490fdb]);
      const got = new Float32Array(mem.bytes(t).slice().buffer);
      expect(got.every((x) => x === Math.fround(Math.PI))).toBe(true);
      mem.free(t.handle);
    }
    pool.close();
    expect(() => pool.run("fill", "fill", 1, [])).toThrow("the backend is closed");
  });

  test("names the first value outside its range", async () => {
    const be = await open(3),
      table = f32(be, new Float32Array(40 * 8), 40, 8),
      out = f32(be, new Float32Array(24), 3, 8);
    expect(() => be.embed(out, table, i32(be, 1, 40, 2), 1)).toThrow(
      "Cannot run embed: token 1 has id 40, which is outside",
    );
    expect(() => be.embedBwd(table, out, i32(be, 1, 2, -1), 1)).toThrow("token 2 has id -1");
    expect(() => be.embed(out, table, i32(be, 1, 39, 2), 1)).not.toThrow();
    const logits = f32(be, new Float32Array(10), 2, 5), loss = f32(be, [0, 0], 2), one = f32(be, [1, 1], 2);
    const plain = { softcap: 0, smoothing: 0, zLoss: 0 };
    expect(() => be.crossEntropy(loss, logits, i32(be, 4, 5), one, plain)).toThrow("row 1 has target 5");
    const cache = f32(be, new Float32Array(2 * 4 * 8), 2, 4, 1, 8), k = f32(be, new Float32Array(8), 1, 1, 8);
    expect(() => be.cacheWrite(cache, cache, k, k, i32(be, 0), i32(be, 4))).toThrow("outside the cache");
    const o = { scale: 1, window: 0, softcap: 0 };
    expect(() => be.attentionCached(k, k, cache, cache, i32(be, 2), i32(be, 0), o)).toThrow("outside the cache");
    const x = f32(be, new Float32Array(32), 4, 1, 8), lse = f32(be, new Float32Array(4), 1, 4);
    for (const cu of [[0, 3, 2, 4], [0, 5], [-1, 4], [0, 4]]) {
      const s = { cu: i32(be, ...cu), maxLen: 3 };
      expect(() => be.attention(x, lse, x, x, x, s, o), `cu ${cu}`).toThrow("bounds must climb");
    }
  });

  test("says that a worker has ended, and gives out no more work", async () => {
    const module = await WebAssembly.compile(Buffer.from(base64, "base64")), mem = new LinearMemory(64 << 20);
    mem.reserve(SCRATCH_BYTES, Pool.bytes(2));
    const pool = await Pool.start({ kernels: module, panels: null }, mem.memory, SCRATCH_BYTES, 2);
    endWorkers(mem.memory);
    await expect.poll(() => failure(pool), { timeout: 20_000 }).toMatch(
      /^Cannot run fill: worker 1 ended unexpectedly/,
    );
    pool.close();
  });

  test("does not wait for ever for a worker that was killed in the middle of a job", async () => {
    const module = await WebAssembly.compile(Buffer.from(base64, "base64")), mem = new LinearMemory(64 << 20);
    mem.reserve(SCRATCH_BYTES, Pool.bytes(2));
    const pool = await Pool.start({ kernels: module, panels: null }, mem.memory, SCRATCH_BYTES, 2, 1);
    endWorkers(mem.memory);
    // The job itself writes 1 where joined workers are counted: to the pool that is a worker who joined and never came back.
    const work = () => pool.run("fill", "fill", 2, [4 * CONTROL.joined, 1, 4, 1]);
    expect(work).toThrow("Cannot run fill: 1 of 1 workers did not come back from a job");
    expect(work).toThrow("Cannot run fill: 1 of 1 workers did not come back from a job");
    pool.close();
  });

  test("may be closed twice, and then refuses work", async () => {
    const be = await open(2), t = f32(be, [1, 2], 2);
    be.close();
    be.close();
    expect(() => be.scale(t, t, 2)).toThrow(BackendError);
  });

  test("starts and ends twenty times", async () => {
    for (let i = 0; i < 20; i++) (await createWasmBackend({ threads: 4 })).close();
  });

  test.each(["here", "in a worker", "in a worker that is terminated"])(
    "does not outlive a process that left it open %s",
    (where) => {
      const script = fileURLToPath(new URL("forgetful.ts", import.meta.url));
      const args = [..."Deno" in globalThis ? ["run", "-A"] : [], script, where];
      const { status, stdout, signal } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 30_000 });
      expect({ status, signal, stdout: stdout.trim() }).toEqual({ status: 0, signal: null, stdout: "computed 12" });
    },
  );
});

describe("the choice of kernels", () => {
  test("follows whether the engine rounds relaxed_madd once", async () => {
    // (1 + 2^-12)² - (1 + 2^-11) is 2^-24, or 0 when the square is rounded before the addition
    const x = 1 + 2 ** -12, be = await open(1, "fma"), c = f32(be, [0], 1, 1);
    be.matmul(c, f32(be, [-(1 + 2 ** -11), x], 1, 2), f32(be, [1, x], 2, 1), null, {});
    const got = new Float32Array(1);
    await be.download(c, got);
    expect(got[0] !== 0).toBe(fusesMultiplyAdd());
    expect((await open(1)).device).toMatch(fusesMultiplyAdd() ? /\((panels|fma)\)/ : /\(mul\)/);
  });
});
