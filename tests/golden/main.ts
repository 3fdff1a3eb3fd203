/**
 * Holds our numbers against transformers and peft:
 *
 *     deno task golden DIR [--model FILE] [--backend reference,wasm] [--case NAME]
 *
 * DIR is laid out as ../shared/golden (a folder a case) or ../shared/golden-real (one case on a model file). One row a
 * case and backend; exit 1 when any bound is missed.
 */
import process from "node:process";
import { join } from "node:path";
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

const OPEN: Readonly<Record<string, () => Backend | Promise<Backend>>> = {
  reference: () => new ReferenceBackend(),
  wasm: () => createWasmBackend(),
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
  const be = await OPEN[backend]();
  try {
    if (!c.golden.tensors.has("input_ids")) {
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

async function main(): Promise<void> {
  const flags = readFlags(process.argv.slice(2));
  let missed = 0, done = 0;
  for (const dir of findCases(flags.dir)) {
    const c = openCase(dir), real = !c.golden.tensors.has("input_ids");
    if (flags.only && c.name !== flags.only) continue;
    for (const backend of flags.backends) {
      if (real && backend === "reference" && flags.backends.length > 1) {
        console.log(`${c.name.padEnd(24)} ${backend.padEnd(9)} left out: hours in f64; --backend reference runs it`);
        continue;
      }
      const start = performance.now(), checks = await runCase(c, backend, flags);
      const ok = checks.every(holds), seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(
        `${c.name.padEnd(24)} ${backend.padEnd(9)} ${ok ? "pass" : "MISS"} ${
          checks.map(row).join(" · ")
        } · ${seconds} s`,
      );
      done++;
      if (!ok) missed++;
    }
    c.golden.close();
  }
  console.log(`${done - missed} passed, ${missed} failed`);
  if (missed > 0 || done === 0) process.exitCode = 1;
}

await main();
