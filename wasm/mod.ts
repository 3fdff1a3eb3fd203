/**
 * The WASM backend: SIMD kernels written in AssemblyScript over one shared memory, on as many threads as there are cores.
 * It runs wherever WebAssembly with SIMD does, and needs nothing installed.
 * @module
 */
import { Buffer } from "node:buffer";
import { availableParallelism } from "node:os";
import type { Candidate, OpenOpts } from "../ffi/select.ts";
import type { Backend } from "../src/core/backend.ts";
import { ConfigError } from "../src/core/errors.ts";
import { WasmBackend } from "./backend.ts";
import * as fma from "./kernels_fma.wasm.ts";
import * as mul from "./kernels_mul.wasm.ts";
import * as panels from "./kernels_panels.wasm.ts";
import { LinearMemory, MOST_BYTES } from "./memory.ts";
import { Pool, SCRATCH_BYTES } from "./pool.ts";
import { fusesMultiplyAdd } from "./probe.ts";

/** What may be chosen. */
export interface WasmOptions {
  /** Threads that compute, the calling one included. Default: the cores this process may use. */
  threads?: number;
  /** Most bytes of linear memory, at most 4 GiB less 64 KiB (the default). Pages are only taken when they are used. */
  maxBytes?: number;
  /**
   * Which kernels: `panels` or `fma` where relaxed_madd is one instruction (they differ in speed only: `panels` also needs
   * garbage-collected structs), `mul` elsewhere. Default: what probe.ts finds.
   */
  kernels?: "panels" | "fma" | "mul";
}

/**
 * Makes a backend; `close()` ends its threads, and so does the end of the process.
 *
 * @returns a backend whose calls have finished when they return
 * @throws {ConfigError} when an option is outside its range
 * @throws {BackendError} when a worker does not start
 * @example
 * ```ts
 * const be = await createWasmBackend({ threads: 2 });
 * const x = { handle: be.alloc(16), byteOffset: 0, dtype: "f32", shape: [4] } as const;
 * be.upload(x, Float32Array.of(1, 2, 3, 4));
 * be.scale(x, x, 2);
 * be.close();
 * ```
 */
export async function createWasmBackend(o: WasmOptions = {}): Promise<Backend> {
  const threads = o.threads ?? availableParallelism(), maxBytes = o.maxBytes ?? MOST_BYTES;
  if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
    throw new ConfigError(`Cannot start ${threads} threads: the number must be an integer from 1 to 256`);
  }
  const least = SCRATCH_BYTES + Pool.bytes(threads);
  if (!(maxBytes >= least && maxBytes <= MOST_BYTES)) {
    throw new ConfigError(`Cannot limit the memory to ${maxBytes} bytes: it must be ${least} to ${MOST_BYTES}`);
  }
  const kind = o.kernels ?? (!fusesMultiplyAdd() ? "mul" : runsPanels() ? "panels" : "fma");
  const modules = {
    kernels: await WebAssembly.compile(decoded((kind === "mul" ? mul : fma).base64)),
    panels: kind === "panels" ? await WebAssembly.compile(decoded(panels.base64)) : null,
  };
  const mem = new LinearMemory(maxBytes), scratch = SCRATCH_BYTES;
  mem.reserve(scratch, Pool.bytes(threads));
  const pool = await Pool.start(modules, mem.memory, scratch, threads);
  return new WasmBackend(mem, pool, `wasm: 128-bit SIMD (${kind}), ${threads} thread${threads > 1 ? "s" : ""}`);
}

/** Whether this engine takes `kernels: "panels"`. */
export function runsPanels(): boolean {
  return WebAssembly.validate(decoded(panels.base64));
}

const decoded = (base64: string): BufferSource => Buffer.from(base64, "base64") as BufferSource;

/** The backend as a candidate for ffi/select.ts. */
export const candidate: Candidate = {
  name: "wasm",
  async open(o: OpenOpts): Promise<Backend> {
    if (o.actDtype !== undefined && o.actDtype !== "f32") {
      throw new ConfigError(`Cannot store activations in ${o.actDtype}: the wasm backend computes in f32`);
    }
    return await createWasmBackend({ threads: o.threads, maxBytes: o.memoryLimit });
  },
};
