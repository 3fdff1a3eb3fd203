/** Builds C for the tests, where gcc is present, in a folder of its own. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Whether C can be built here. */
export const hasGcc: boolean = spawnSync("gcc", ["--version"]).status === 0;

const HERE = fileURLToPath(new URL(".", import.meta.url));
const FFI = fileURLToPath(new URL("../../ffi", import.meta.url));
const folder = hasGcc ? mkdtempSync(join(tmpdir(), "unsloth-ffi-")) : "";
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

let built = 0;

/** Path of a shared library made of tests/ffi/`source` with extra flags; each call makes another file. */
export function buildLibrary(source: string, ...flags: string[]): string {
  const out = join(folder, `lib${built++}.so`);
  gcc(["-shared", "-fPIC", "-fvisibility=hidden", ...flags, join(HERE, source), "-o", out]);
  return out;
}

/** What a program of tests/ffi/`source` prints. */
export function runProgram(source: string, input: string): string {
  const out = join(folder, `program${built++}`), lang = source.endsWith(".c") ? "c" : "c++";
  gcc(["-x", lang, "-", "-o", out], input);
  const run = spawnSync(out, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`Cannot run ${source}: status ${run.status}`);
  return run.stdout;
}

function gcc(args: string[], input?: string): void {
  const r = spawnSync("gcc", ["-O1", "-Wall", "-Wextra", "-Werror", `-I${FFI}`, ...args], { input, encoding: "utf8" });
  if (r.status !== 0) throw new Error(`Cannot build: ${r.stderr}`);
}
