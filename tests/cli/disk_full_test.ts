/** A disk that is full in mid-run: the sentence says so, and the checkpoint before it is whole and goes on. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { spawnSync } from "node:child_process";
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { PROGRAM, tinyTask } from "./process.ts";

let tiny: Awaited<ReturnType<typeof tinyTask>>;
beforeAll(async () => {
  tiny = await tinyTask();
});
afterAll(() => tiny.remove());

/** A run of its own; `blocks`: no file of it may grow beyond so many blocks, which fails as a full disk does. */
function run(name: string, blocks: number | null, ...more: string[]) {
  const few = ["--max_steps", "9", "--save_steps", "3", "--save_total_limit", "9"];
  const argv = [...PROGRAM, ...tiny.train(name, ...few, ...more)];
  const limit = blocks === null ? "" : `trap '' XFSZ; ulimit -f ${blocks};`;
  const { status, stdout, stderr } = spawnSync("sh", ["-c", `${limit} exec "$@"`, "sh", ...argv], { encoding: "utf8" });
  return { status, output: stdout + stderr };
}

const adapter = (name: string) => tiny.adapter(name);

test.skipIf(process.platform === "win32")(
  "a full disk leaves the last checkpoint whole and names it; --resume ends as if nothing had happened",
  () => {
    const whole = run("whole", null);
    expect(whole.status, whole.output).toBe(0);
    const first = "checkpoint-000003";
    cpSync(join(tiny.dir, "whole", first), join(tiny.dir, "cut", first), { recursive: true });
    // 8 blocks of 512 or 1024 bytes: the tensors of a checkpoint are larger, all the rest is smaller.
    const full = run("cut", 8, "--resume");
    expect(full.status).toBeGreaterThan(0);
    expect(full.output).toMatch(/Error: Cannot save the checkpoint of step 6: .*; .*checkpoint-000003 is intact/);
    expect(readdirSync(join(tiny.dir, "cut")).sort()).toEqual([first, "config.yaml", "metrics.jsonl"]);
    const rest = run("cut", null, "--resume");
    expect(rest.status, rest.output).toBe(0);
    expect(adapter("cut").equals(adapter("whole"))).toBe(true);
  },
);
