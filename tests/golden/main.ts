/**
 * Holds our numbers against transformers and peft:
 *
 *     deno task golden DIR [--model FILE] [--backend reference,wasm] [--case NAME]
 *
 * DIR is laid out as ../shared/golden (a folder a case) or ../shared/golden-real (one case on a model file). One row a
 * case and backend; exit 1 when any bound is missed.
 */
import process from "node:process";
import { basename, join } from "node:path";
import { candidate as metal } from "../../metal/mod.ts";
import type { Backend } from "../../src/core/backend.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { type Case, findCases, openCase } from "./case.ts";
import { type Check, holds } from "./compare.ts";
import { runReal } from "./real.ts";
import { type Bounds, runTiny } from "./tiny.ts";

interface Flags {
  dir: string;
  model?: string;
  backends: string[];
  only?: string;
}

/** Tiny cases on one thread: several only wait for each other, and change no bit (tests/wasm/threads_test.ts). */
const OPEN: Readonly<Record<string, (real: boolean) => Backend | Promise<Backend>>> = {
  reference: () => new ReferenceBackend(),
  wasm: (real) => createWasmBackend(real ? {} : { threads: 1 }),
  metal: () => metal.open({ actDtype: "f32" }),
};
/** Those that run anywhere. */
const USUAL = ["reference", "wasm"];

const BOUNDS: Readonly<Record<string, Bounds>> = {
  reference: { logits: 1e-6, grads: 5e-6, curve: 5e-5, final: 5e-4 },
  wasm: { logits: 1e-5, grads: 5e-5, curve: 2e-4, final: 1e-3 },
  metal: { logits: 1e-5, grads: 5e-5, curve: 2e-4, final: 1e-3 },
};

function readFlags(args: string[]): Flags {
  const flags: Flags = { dir: "", backends: USUAL };
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--model") flags.model = args[++i];
    else if (args[i] === "--case") flags.only = args[++i];
    else if (args[i] === "--backend") flags.backends = (args[++i] ?? "").split(",");
    else if (args[i].startsWith("--") || flags.dir) throw new Error(`Cannot use the argument '${args[i]}'`);
    else flags.dir = args[i];
  }
  const unknown = flags.backends.find((b) => !OPEN[b]);
  if (unknown !== undefined) throw new Error(`Cannot use the backend '${unknown}': ${Object.keys(OPEN).join(", ")}`);
  if (!flags.dir) throw new Error("Cannot start: golden DIR [--model FILE] [--backend reference,wasm] [--case NAME]");
  return flags;
}

async function runCase(c: Case, backend: string, flags: Flags): Promise<Check[]> {
  const real = !c.golden.tensors.has("input_ids"), be = await OPEN[backend](real);
  try {
    if (real) {
      return await runReal(c, be, flags.model ?? join(c.dir, "..", "models", c.recipe.model ?? ""));
    }
    return await runTiny(c, be, BOUNDS[backend], flags.model ?? c.dir);
  } finally {
    be.close();
  }
}

function row(c: Check): string {
  const value = c.bound === 0 ? (c.value === 0 ? "equal" : "DIFFERS") : c.value.toExponential(1);
  const note = c.note && (c.bound === 0 || !holds(c)) ? ` (${c.note})` : "";
  return `${c.what} ${value}${note}${holds(c) ? "" : ` MISS > ${c.bound}`}`;
}

/** Runs a case on every backend and prints its rows; what throws is a miss of that case, and the others go on. */
async function runAll(dir: string, flags: Flags): Promise<{ done: number; missed: number }> {
  const name = basename(dir).padEnd(24), counted = { done: 0, missed: 0 };
  for (const backend of flags.backends) {
    const start = performance.now();
    try {
      const c = openCase(dir), real = !c.golden.tensors.has("input_ids");
      if (real && backend === "reference" && flags.backends.length > 1) {
        console.log(`${name} ${backend.padEnd(9)} left out: hours in f64; --backend reference runs it`);
        c.golden.close();
        continue;
      }
      const checks = await runCase(c, backend, flags), ok = checks.every(holds);
      c.golden.close();
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(`${name} ${backend.padEnd(9)} ${ok ? "pass" : "MISS"} ${checks.map(row).join(" · ")} · ${seconds} s`);
      if (!ok) counted.missed++;
    } catch (e) {
      console.log(`${name} ${backend.padEnd(9)} MISS ${e instanceof Error ? e.message : e}`);
      counted.missed++;
    }
    counted.done++;
  }
  return counted;
}

async function main(): Promise<void> {
  const flags = readFlags(process.argv.slice(2));
  let missed = 0, done = 0;
  for (const dir of findCases(flags.dir)) {
    if (flags.only && basename(dir) !== flags.only) continue;
    const counted = await runAll(dir, flags);
    done += counted.done;
    missed += counted.missed;
  }
  console.log(`${done - missed} passed, ${missed} failed`);
  if (missed > 0 || done === 0) process.exitCode = 1;
}

await main();
