/**
 * Every operation test on the GPU, in f32, bf16 and f16:
 * `deno run -A --no-config --import-map tests/gpu/import_map.json tests/gpu/ops.ts`, or with Bun after `--tsconfig-override`.
 * @module
 */
import { readdirSync } from "node:fs";
import { exit, runAll } from "./mini_vitest.ts";

const folder = new URL("../ops/", import.meta.url);
for (const file of readdirSync(folder).filter((f) => f.endsWith("_test.ts") && f !== "harness_test.ts")) {
  await import(new URL(file, folder).href);
}
await import("./attention_tiles.ts");
exit(await runAll(" on cuda"));
