/**
 * Operation tests under compute-sanitizer, whose kernels it slows a hundredfold: a choice of files, and of backends by name.
 *
 *   compute-sanitizer --tool memcheck deno run -A --no-config --no-lock --import-map tests/gpu/import_map.json \
 *     tests/gpu/sanitized.ts " on cuda" ops/feed_forward_test.ts gpu/attention_tiles.ts
 * @module
 */
import process from "node:process";
import { exit, runAll } from "./mini_vitest.ts";

const [filter, ...files] = process.argv.slice(2);
for (const file of files) await import(`../${file}`);
exit(await runAll(filter));
