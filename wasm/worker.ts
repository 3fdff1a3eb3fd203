/**
 * The program of a worker thread, as text: so it loads alike from a file, from JSR over https, from node_modules (where
 * Node strips no types), inside a compiled binary and inside Vitest, with no read permission and no second request.
 *
 * It waits for a change of CONTROL.generation, joins the job if it is still open, takes units until none are left, and
 * counts itself out. A trap ends the job (next = units), leaves its words in CONTROL.trap and never the worker hanging.
 * @module
 */

/** Places in the first 4 KiB, in units of 4 bytes. Those written by different threads lie on lines of their own. */
export const CONTROL = {
  /** Counts jobs. */
  generation: 0,
  /** Index of the kernel. */
  kernel: 1,
  /** Units of the job. */
  units: 2,
  /** Next unit to take. */
  next: 16,
  /** Workers in the job; far below zero once it is closed. */
  joined: 32,
  /** assembly/job.ts `fail`: code, row, value. */
  fail: 48,
  /** Workers out of the job. */
  done: 64,
  /** 1: workers end. */
  stop: 80,
  /** Length of the words that follow, 0 when no thread trapped. */
  trap: 96,
  /** Integer arguments, 64 of them. */
  args: 128,
  /** Float arguments, 64 of them. */
  floats: 192,
  /** Bytes of the words after `trap`. */
  trapBytes: 112,
} as const;

/** Value of `joined` that closes a job. */
export const CLOSED = -0x40000000;

/**
 * Looks at the generation before sleeping: some 200 µs, which is longer than the gap between two operations and than most units. A
 * thread that has to be woken is 50 µs late.
 */
export const SPINS = 4000;

/** What a thread instantiates. */
export interface Modules {
  /** The kernels. */
  readonly kernels: WebAssembly.Module;
  /** The tile over structs (panel_kernel.ts), which the fused kernels call; null where the engine has no structs. */
  readonly panels: WebAssembly.Module | null;
}

/** What the program is given. */
export interface WorkerData {
  readonly modules: Modules;
  readonly memory: WebAssembly.Memory;
  readonly names: readonly string[];
  /** Address of the thread's own scratch memory. */
  readonly scratch: number;
  readonly control: typeof CONTROL;
  readonly spins: number;
}

/** A thread's instance of the kernels. Its text is part of the program below: it may name nothing outside itself. */
export function instantiate(modules: Modules, memory: WebAssembly.Memory): WebAssembly.Instance {
  const env = { memory },
    none = () => {
      throw new Error("panels are not there");
    };
  const panels = modules.panels
    ? new WebAssembly.Instance(modules.panels, { env }).exports
    : { fillPlain: none, fillTransposed: none, multiply: none, take: none };
  return new WebAssembly.Instance(modules.kernels, { env, panels });
}

/** JavaScript for `new Worker(program, { eval: true })`. */
export const program: string = `{
const { parentPort, workerData: d } = require("node:worker_threads");
const { exports } = (${instantiate})(d.modules, d.memory);
const kernels = d.names.map((name) => exports[name]);
const c = d.control, ctl = new Int32Array(d.memory.buffer, 0, 256);
const pause = Atomics.pause ? () => Atomics.pause() : () => {};

function take() {
  try {
    const run = kernels[ctl[c.kernel]], units = ctl[c.units];
    for (let u; (u = Atomics.add(ctl, c.next, 1)) < units;) run(u, d.scratch);
  } catch (e) {
    const words = new TextEncoder().encode(String(e && e.message || e)).slice(0, c.trapBytes);
    new Uint8Array(d.memory.buffer).set(words, 4 * c.trap + 4);
    Atomics.store(ctl, c.trap, Math.max(1, words.length));
    Atomics.store(ctl, c.next, 0x3fffffff);
  }
}

parentPort.postMessage("ready");
for (let seen = 0;;) {
  for (let i = 0; i < d.spins && Atomics.load(ctl, c.generation) === seen; i++) pause();
  while (Atomics.load(ctl, c.generation) === seen) Atomics.wait(ctl, c.generation, seen);
  seen = Atomics.load(ctl, c.generation);
  if (Atomics.load(ctl, c.stop) !== 0) break;
  if (Atomics.add(ctl, c.joined, 1) < 0) continue;
  take();
  Atomics.add(ctl, c.done, 1);
  Atomics.notify(ctl, c.done);
}
}`;
