/**
 * The host part of the CUDA library, compiled for the CPU over a fake runtime (tests/cuda/sim): handles, memory, recordings,
 * failures, and products held back against products run at once. With sanitizers and slips: tests/cuda/run.sh.
 */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const run = fileURLToPath(new URL("run.sh", import.meta.url));
const has = (tool: string): boolean => spawnSync(tool, ["--version"]).status === 0;
const why = process.platform !== "linux" ? "needs Linux" : has("g++") ? null : "needs g++";

test.skipIf(why !== null)(`cuda/host holds over the fake runtime${why ? ` (${why})` : ""}`, () => {
  const r = spawnSync(run, ["quick"], { encoding: "utf8" });
  expect(r.status, `${r.stdout}${r.stderr}`).toBe(0);
  expect(r.stdout).toMatch(/\d{3} passed, 0 failed; roles: 35 operations, .*; pending: 200 programs/);
}, 300_000);
