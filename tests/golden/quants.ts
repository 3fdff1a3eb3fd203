/** `deno task golden:quants DIR`: every block format against ggml's bytes; one row a type, exit 1 on a miss. */
import process from "node:process";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { passes, runQuantCases } from "./quant_cases.ts";

const dir = process.argv[2];
if (!dir) {
  console.log("usage: golden:quants DIR, a folder laid out as ../shared/golden-quants");
  process.exit(2);
}
const codec = await openBlockCodec(1);
const cases = await runQuantCases(dir, codec);
codec.close();
console.log(`     ${"type".padEnd(8)}${"decoded".padEnd(12)}encoded`);
for (const c of cases) {
  const decoded = c.decodedWrong ? `${c.decodedWrong} wrong` : "equal";
  const encoded = c.encoded.map((e) =>
    `${e.by}: ${e.differing ? `${e.differing} bytes differ, rows with a larger error: [${e.worseRows}]` : "equal"}`
  );
  console.log(`${passes(c) ? "ok  " : "MISS"} ${c.name.padEnd(8)}${decoded.padEnd(12)}${encoded.join("   ")}`);
}
const missed = cases.filter((c) => !passes(c)).length;
console.log(`${cases.length - missed} of ${cases.length} types pass`);
process.exit(missed ? 1 : 0);
