/**
 * Every operation test on the GPU, in f32, bf16 and f16:
 * `deno run -A --no-config --import-map tests/gpu/import_map.json tests/gpu/ops.ts`, or with Bun after `--tsconfig-override`.
 * With arguments some of them: what a test's name holds (" on cuda bf16"), then files under tests/.
 * @module
 */
import { readdirSync } from "node:fs";
import process from "node:process";
import { exit, runAll } from "./mini_vitest.ts";

const [filter = " on cuda", ...chosen] = process.argv.slice(2), tests = new URL("../", import.meta.url);
const all = readdirSync(new URL("ops/", tests)).filter((f) => f.endsWith("_test.ts") && f !== "harness_test.ts");
for (const file of chosen.length ? chosen : [...all.map((f) => `ops/${f}`), "gpu/attention_tiles.ts"]) {
  await import(new URL(file, tests).href);
}
exit(await runAll(filter));
