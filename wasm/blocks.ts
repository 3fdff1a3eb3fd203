/**
 * The block encoders of wasm/rust, run by worker threads: a chunk of rows goes to whichever is free.
 * @module
 */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { BlockCodec } from "../src/core/block_codec.ts";
import { bytesOf, DTYPES, type Quant } from "../src/core/dtype.ts";
import { BackendError, ShapeError } from "../src/core/errors.ts";

/** Where wasm-pack put the module. */
const MODULE = new URL("./rust/pkg/unsloth_blocks_bg.wasm", import.meta.url);

/** JavaScript for `new Worker(program, { eval: true })`: as text it loads alike everywhere (worker.ts says why). */
const program = `{
const { parentPort, workerData } = require("node:worker_threads");
const imports = {};
for (const { module, name } of WebAssembly.Module.imports(workerData)) (imports[module] ??= {})[name] = () => {};
const wasm = new WebAssembly.Instance(workerData, imports).exports;
parentPort.on("message", ({ code, rows, cols, x, importance, bytes }) => {
  try {
    const weightsAt = x.byteLength, outAt = weightsAt + (importance ? 4 * cols : 0);
    const at = wasm.reserve(outAt + bytes) >>> 0;
    const floats = (from, buffer) => new Float32Array(wasm.memory.buffer, from, buffer.byteLength / 4).set(new Float32Array(buffer));
    floats(at, x);
    if (importance) floats(at + weightsAt, importance);
    const n = wasm.quantize(code, rows, cols, at, importance ? at + weightsAt : 0, at + outAt) >>> 0;
    if (n !== bytes) throw new Error("it wrote " + n + " bytes and " + bytes + " were expected");
    const out = new Uint8Array(wasm.memory.buffer, at + outAt, bytes).slice().buffer;
    parentPort.postMessage({ out }, [out]);
  } catch (e) {
    parentPort.postMessage({ error: String(e && e.message || e) });
  }
});
}`;

/** What a worker says. */
interface Answer {
  readonly out?: ArrayBuffer;
  readonly error?: string;
}

/** A chunk of rows on its way. Bare buffers travel: Deno copies a typed array element by element (measured: 60 ms a MB). */
interface Job {
  readonly message: Record<string, unknown>;
  readonly transfer: ArrayBuffer[];
  resolve(out: Uint8Array<ArrayBuffer>): void;
  reject(e: Error): void;
}

async function readModule(): Promise<WebAssembly.Module> {
  const bytes = MODULE.protocol === "file:" ? readFileSync(MODULE) : await (await fetch(MODULE)).arrayBuffer();
  return WebAssembly.compile(bytes as BufferSource);
}

class Workers implements BlockCodec {
  readonly #idle: Worker[] = [];
  readonly #all: Worker[] = [];
  readonly #waiting: Job[] = [];
  readonly #running = new Map<Worker, Job>();

  readonly threads: number;

  constructor(module: WebAssembly.Module, threads: number) {
    this.threads = threads;
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(program, { eval: true, workerData: module });
      worker.on("message", (m: Answer) => this.#finish(worker, m));
      worker.on("error", (e: unknown) => this.#finish(worker, { error: e instanceof Error ? e.message : String(e) }));
      worker.unref();
      this.#all.push(worker);
      this.#idle.push(worker);
    }
  }

  #finish(worker: Worker, { out, error }: Answer): void {
    const job = this.#running.get(worker);
    this.#running.delete(worker);
    worker.unref();
    this.#idle.push(worker);
    this.#start();
    if (out) job?.resolve(new Uint8Array(out));
    else job?.reject(new BackendError(`Cannot encode blocks: ${error}`, "encode", undefined, "wasm"));
  }

  #start(): void {
    while (this.#idle.length && this.#waiting.length) {
      const [worker, job] = [this.#idle.pop()!, this.#waiting.shift()!];
      this.#running.set(worker, job);
      worker.ref(); // the process stays until the answer is there
      worker.postMessage(job.message, job.transfer);
    }
  }

  encode(
    dtype: Quant,
    cols: number,
    x: Float32Array<ArrayBuffer>,
    importance: Float32Array<ArrayBuffer> | null,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { code, block } = DTYPES[dtype];
    if (!(cols > 0) || cols % block || x.length % cols || (importance && importance.length !== cols)) {
      const weights = importance ? ` and ${importance.length} weights` : "";
      throw new ShapeError(
        `Cannot encode ${x.length} values in rows of ${cols}${weights} as ${dtype}: blocks are ${block}`,
      );
    }
    if (!this.#all.length) throw new BackendError("Cannot encode blocks: the codec is closed", "encode");
    const floats = x.byteLength === x.buffer.byteLength ? x.buffer : x.slice().buffer;
    const weights = importance?.slice().buffer;
    const bytes = bytesOf(dtype, x.length);
    const message = { code, rows: x.length / cols, cols, x: floats, importance: weights, bytes };
    const transfer = weights ? [floats, weights] : [floats];
    return new Promise((resolve, reject) => {
      this.#waiting.push({ message, transfer, resolve, reject });
      this.#start();
    });
  }

  close(): void {
    for (const worker of this.#all.splice(0)) void worker.terminate();
    this.#idle.length = 0;
    for (const job of [...this.#running.values(), ...this.#waiting.splice(0)]) {
      job.reject(new BackendError("Cannot encode blocks: the codec was closed", "encode"));
    }
    this.#running.clear();
  }
}

/** Starts the encoders. @param threads workers; default all the machine has, eight at most */
export async function openBlockCodec(threads: number = Math.min(8, availableParallelism())): Promise<BlockCodec> {
  return new Workers(await readModule(), Math.max(1, threads));
}
