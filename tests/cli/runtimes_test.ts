import { afterAll, beforeAll, expect, test } from "vitest";
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { readMetrics } from "../../src/train/metrics.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";

const TOOLS = fileURLToPath(new URL("../tools/node_modules/", import.meta.url));
const MOD = fileURLToPath(new URL("../../mod.ts", import.meta.url));

/** Runtimes that npm brought for the tests, and the one that runs this. */
const RUNTIMES: [name: string, command: string[]][] = [
  ["Deno", [join(TOOLS, ".bin", "deno"), "run", "-A", "--quiet", MOD]],
  ["Bun", [join(TOOLS, ".bin", "bun"), MOD]],
  ["Node", [join(TOOLS, `node-${process.platform}-${process.arch}`, "bin", "node"), MOD]],
].filter(([, [path]]) => existsSync(path as string)) as [string, string[]][];

let tiny: Awaited<ReturnType<typeof tinyModel>>;
beforeAll(async () => {
  tiny = await tinyModel();
  writeFileSync(
    join(tiny.dir, "data.jsonl"),
    instructions(1).train.slice(0, 20).map((r) => JSON.stringify(r)).join("\n"),
  );
});
afterAll(() => tiny.remove());

test.skipIf(RUNTIMES.length < 2)("the same seed gives the same twenty losses on Deno, Bun and Node, to 1e-5", () => {
  const curves = RUNTIMES.map(([name, [program, ...args]]) => {
    const dir = join(tiny.dir, name);
    const run = spawnSync(program, [
      ...[...args, "train", "--model_name", tiny.model, "--dataset", join(tiny.dir, "data.jsonl"), "--output_dir", dir],
      ...[
        "--max_steps",
        "20",
        "--samples",
        "0",
        "--num_threads",
        "1",
        "--report_to",
        "none",
        "--learning_rate",
        "1e-3",
      ],
    ], { encoding: "utf8" });
    expect(run.status, `${name}: ${run.stderr}`).toBe(0);
    return readMetrics(join(dir, "metrics.jsonl")).map((m) => m.loss!);
  });
  expect(curves[0]).toHaveLength(20);
  expect(curves[0].at(-1)).toBeLessThan(curves[0][0]);
  for (const curve of curves.slice(1)) {
    curve.forEach((loss, i) => expect(Math.abs(loss / curves[0][i] - 1)).toBeLessThan(1e-5));
  }
});
