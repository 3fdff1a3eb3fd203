/**
 * Threads over one WebAssembly memory. The calling thread publishes a job, takes units of it like everybody else, closes
 * it and waits for those who joined: a worker that wakes late finds the job closed and costs nothing.
 * @module
 */
import process from "node:process";
import { Worker } from "node:worker_threads";
import { STATUS } from "../ffi/abi_base.ts";
import { BackendError } from "../src/core/errors.ts";
import { CLOSED, CONTROL as C, instantiate, type Modules, program, SPINS, type WorkerData } from "./worker.ts";

type Kernel = (unit: number, scratch: number) => void;

/** Bytes of scratch a thread has: the panels of a GEMM (matmul.ts) are the largest. */
export const SCRATCH_BYTES = 1 << 20;
/** Bytes for packed rows of A, which all threads read (matmul.ts). */
export const PANELS_BYTES = 5 << 20;

/**
 * Seconds to wait for a worker that is in a job. A unit takes milliseconds, on a crowded machine seconds; whoever says
 * nothing for so long is gone. Counted in waits of one second, so that a suspended process does not use them up.
 */
const PATIENCE = 120;

/** What assembly/job.ts's codes of `fail` mean; row and value are the reporting kernel's. */
const FAILURES: Record<number, (row: number, value: number) => string> = {
  1: (row, id) => `token ${row} has id ${id}, which is outside the table`,
  2: (row, id) => `row ${row} has target ${id}, which is outside the vocabulary`,
  3: (row, at) => `token ${row} names row or sequence ${at}, which is outside the cache`,
  4: (s, at) => `sequence bound ${s} is ${at}: bounds must climb, by maxLen at most, and end within the tokens`,
};

/** Pools with workers; at the process's end they are told to stop, because Deno waits for a worker that sleeps. */
const open = new Set<Pool>();
let hooked = false;

function stopAllAtExit(): void {
  if (hooked) return;
  hooked = true;
  process.on("exit", () => open.forEach((p) => p.close()));
}

/** Runs kernels on `threads` threads, the calling one included. */
export class Pool {
  readonly #kernels: Kernel[];
  readonly #index = new Map<string, number>();
  readonly #ctl: Int32Array;
  readonly #floats: Float32Array;
  readonly #workers: Worker[] = [];
  readonly #exports: WebAssembly.Exports;
  #closed = false;
  /** Why there are no workers to rely on any more. */
  #lost: string | null = null;

  /** Rows of a packed panel of A, which the kernels decide. */
  readonly panelRows: number;
  /** Whether there is the tile over structs. */
  readonly held: boolean;

  private readonly memory: WebAssembly.Memory;
  /** Address of the first thread's scratch; the others' follow. */
  readonly scratch: number;
  readonly threads: number;
  private readonly patience: number;

  constructor(
    modules: Modules,
    memory: WebAssembly.Memory,
    scratch: number,
    threads: number,
    patience: number,
  ) {
    this.patience = patience;
    this.memory = memory;
    this.scratch = scratch;
    this.threads = threads;
    this.#exports = instantiate(modules, memory).exports;
    const names = kernelNames(modules.kernels);
    this.#kernels = names.map((n) => this.#exports[n] as Kernel);
    names.forEach((n, i) => this.#index.set(n, i));
    this.panelRows = (this.#exports.panelRows as () => number)();
    this.held = modules.panels !== null;
    this.#ctl = new Int32Array(memory.buffer, 0, 256);
    this.#floats = new Float32Array(memory.buffer, 0, 256);
  }

  /**
   * Starts the workers and waits until each has instantiated the modules.
   * @throws {BackendError} when a worker does not start
   */
  static async start(
    modules: Modules,
    memory: WebAssembly.Memory,
    scratch: number,
    threads: number,
    patience: number = PATIENCE,
  ): Promise<Pool> {
    const pool = new Pool(modules, memory, scratch, threads, patience), names = kernelNames(modules.kernels);
    const ready: Promise<void>[] = [];
    for (let t = 1; t < threads; t++) {
      const workerData: WorkerData = {
        modules,
        memory,
        names,
        scratch: scratch + t * SCRATCH_BYTES,
        control: C,
        spins: SPINS,
      };
      const worker = new Worker(program, { eval: true, workerData });
      pool.#workers.push(worker);
      ready.push(started(worker, t));
    }
    open.add(pool);
    stopAllAtExit();
    try {
      await Promise.all(ready);
    } catch (e) {
      pool.close();
      throw e;
    }
    pool.#workers.forEach((worker, i) => {
      worker.on("exit", (code) => pool.#lose(`worker ${i + 1} ended unexpectedly (${code})`));
      worker.on("error", (e: unknown) => pool.#lose(`worker ${i + 1} failed: ${e instanceof Error ? e.message : e}`));
      worker.unref();
    });
    return pool;
  }

  /** Address of the panels of A, after the threads' scratch. */
  get panels(): number {
    return this.scratch + this.threads * SCRATCH_BYTES;
  }

  /** Bytes that a pool takes from its first scratch on. */
  static bytes(threads: number): number {
    return threads * SCRATCH_BYTES + PANELS_BYTES;
  }

  /**
   * Runs units 0..units of a kernel and returns when all are done.
   * @throws {BackendError} when a thread traps or a kernel reports a value outside its range
   */
  run(op: string, kernel: string, units: number, args: readonly number[], floats: readonly number[] = []): void {
    if (this.#closed) throw new BackendError(`Cannot run ${op}: the backend is closed`, op);
    if (this.#lost) throw new BackendError(`Cannot run ${op}: ${this.#lost}`, op, undefined, "wasm");
    const index = this.#index.get(kernel)!, ctl = this.#ctl;
    for (let i = 0; i < args.length; i++) ctl[C.args + i] = args[i];
    for (let i = 0; i < floats.length; i++) this.#floats[C.floats + i] = floats[i];
    ctl[C.fail] = 0;
    try {
      if (units === 1 || this.#workers.length === 0) {
        const run = this.#kernels[index];
        for (let u = 0; u < units; u++) run(u, this.scratch);
      } else this.#share(index, units);
    } catch (e) {
      throw new BackendError(`Cannot run ${op}: ${(e as Error).message}`, op, undefined, "wasm");
    }
    if (ctl[C.fail] !== 0) this.#throwFailure(op);
  }

  /** A view of `count` i32 at an address. */
  ints(address: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, count);
  }

  /** Runs a kernel without units on the calling thread and returns its result. */
  call(op: string, kernel: string, args: readonly number[]): number {
    if (this.#closed) throw new BackendError(`Cannot run ${op}: the backend is closed`, op);
    for (let i = 0; i < args.length; i++) this.#ctl[C.args + i] = args[i];
    const result = (this.#exports[kernel] as () => number)();
    if (this.#ctl[C.fail] !== 0) this.#throwFailure(op);
    return result;
  }

  #share(index: number, units: number): void {
    const ctl = this.#ctl, run = this.#kernels[index];
    ctl[C.kernel] = index;
    ctl[C.units] = units;
    Atomics.store(ctl, C.next, 0);
    Atomics.store(ctl, C.done, 0);
    // What a worker left in a job that the calling thread's own trap ended is not this job's.
    Atomics.store(ctl, C.trap, 0);
    Atomics.store(ctl, C.joined, 0);
    Atomics.add(ctl, C.generation, 1);
    Atomics.notify(ctl, C.generation, units - 1);
    try {
      for (let u; (u = Atomics.add(ctl, C.next, 1)) < units;) run(u, this.scratch);
    } finally {
      Atomics.store(ctl, C.next, 0x3fffffff);
      const joined = Atomics.exchange(ctl, C.joined, CLOSED);
      this.#await(joined);
    }
    const length = Atomics.exchange(ctl, C.trap, 0);
    if (length !== 0) {
      const at = 4 * C.trap + 4;
      throw new Error(new TextDecoder().decode(new Uint8Array(this.memory.buffer).slice(at, at + length)));
    }
  }

  /**
   * Waits until as many workers have counted themselves out as had joined.
   * @throws {Error} when one has been silent for too long: it was killed in the middle, and its part is not done
   */
  #await(joined: number): void {
    const ctl = this.#ctl;
    for (let i = 0; i < SPINS && Atomics.load(ctl, C.done) < joined; i++) pause();
    for (let d, silent = 0; (d = Atomics.load(ctl, C.done)) < joined;) {
      if (Atomics.wait(ctl, C.done, d, 1000) !== "timed-out") silent = 0;
      else if (++silent >= this.patience) {
        this.#lose(`${joined - d} of ${this.threads - 1} workers did not come back from a job`);
        throw new Error(this.#lost!);
      }
    }
  }

  /** No job is given out any more: what a lost worker had begun is not done, and it may still write. */
  #lose(why: string): void {
    if (!this.#closed) this.#lost ??= why;
  }

  #throwFailure(op: string): never {
    const [code, row, value] = this.#ctl.slice(C.fail, C.fail + 3);
    this.#ctl[C.fail] = 0;
    throw new BackendError(`Cannot run ${op}: ${FAILURES[code](row, value)}`, op, STATUS.invalid, "wasm");
  }

  /** Tells the workers to end; they do so by themselves, so that nothing is killed while it sleeps. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    open.delete(this);
    Atomics.store(this.#ctl, C.stop, 1);
    Atomics.add(this.#ctl, C.generation, 1);
    Atomics.notify(this.#ctl, C.generation);
  }
}

const pause: () => void = (() => {
  const p = (Atomics as unknown as { pause?: () => void }).pause;
  return p ? () => p() : () => {};
})();

/** Names of the kernels in the order of the module, which every thread sees alike. */
function kernelNames(module: WebAssembly.Module): string[] {
  return WebAssembly.Module.exports(module).filter((e) => e.kind === "function").map((e) => e.name);
}

function started(worker: Worker, t: number): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", (e: unknown) => {
      const why = e instanceof Error ? e.message : String(e);
      reject(new BackendError(`Cannot start worker ${t}: ${why}`, "start", undefined, "wasm"));
    });
  });
}
