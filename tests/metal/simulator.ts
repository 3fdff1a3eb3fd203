/** The simulator as a library, built once a checkout where the tools are (tests/metal/sim/build.sh). */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { runtime } from "../../ffi/library.ts";

/** The repository's root. */
export const ROOT: string = fileURLToPath(new URL("../../", import.meta.url));

/** `bun --bun` puts itself on the path as `node`, which knows no --version: what is built here wants the real one. */
const env = { ...process.env, PATH: process.env.PATH?.split(":").filter((p) => !/\/bun-node[^/]*$/.test(p)).join(":") };
const has = (tool: string): boolean => spawnSync(tool, ["--version"], { env }).status === 0;

/** Why the simulator cannot run here; null when it can. */
export function missing(): string | null {
  if (process.platform !== "linux") return "needs Linux";
  if (runtime() === "other") return "needs a runtime with FFI";
  const tools = ["clang-19", "clang++-19", "ld.lld-19", "node"].filter((t) => !has(t));
  return tools.length > 0 ? `needs ${tools.join(", ")}` : null;
}

/** Builds what is not built yet; returns the library's path. Takes some 20 seconds of one core the first time. */
export function buildSimulator(): string {
  const r = spawnSync(`${ROOT}tests/metal/sim/build.sh`, [`${ROOT}.cache/metal`], { encoding: "utf8", env });
  if (r.status !== 0) throw new Error(`Cannot build the simulator: ${r.stderr}`);
  return `${ROOT}.cache/metal/libunsloth_metal.so`;
}

/** Runs a program of the repository, or Vitest, in the runtime that runs this; Metal is the simulator there. */
export function runHere(
  library: string,
  program: "vitest" | string,
  args: readonly string[],
): { status: number | null; text: string } {
  const inside = runtime(), vitest = program === "vitest";
  const head = inside === "deno"
    ? ["run", "-A", vitest ? "npm:vitest" : program]
    : vitest
    ? [...(inside === "bun" ? ["--bun"] : []), `${ROOT}node_modules/vitest/vitest.mjs`]
    : [program];
  const r = spawnSync(process.execPath, [...head, ...args], {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, UNSLOTH_LIB_METAL: library, NO_COLOR: "1", VITEST: undefined },
    maxBuffer: 1 << 26,
  });
  return { status: r.status, text: `${r.stdout}\n${r.stderr}` };
}
