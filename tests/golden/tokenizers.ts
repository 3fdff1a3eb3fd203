/**
 * `deno task golden:tokenizers DIR...`: every encode, decode and chat row of the golden folders, one line a tokenizer and kind;
 * exits 1 on a miss or when a folder holds no case.
 */
import { runFolder } from "./tokenizer_cases.ts";

const dirs = process.argv.slice(2);
if (dirs.length === 0) {
  console.error("Cannot run: no folder given; deno task golden:tokenizers ../shared/golden-tokenizers ../shared/vocab");
  process.exit(2);
}
let misses = 0;
for (const dir of dirs) {
  let cases = 0;
  console.log(`${"tokenizer".padEnd(22)}${"kind".padEnd(16)}${"equal".padStart(6)}${"of".padStart(6)}`);
  for (const r of runFolder(dir)) {
    cases += r.of;
    misses += r.of - r.equal;
    console.log(`${r.name.padEnd(22)}${r.kind.padEnd(16)}${String(r.equal).padStart(6)}${String(r.of).padStart(6)}`);
    for (const m of r.misses) console.log(`  ${m}`);
  }
  if (cases === 0) {
    console.error(`Cannot run: '${dir}' holds no golden case`);
    misses++;
  }
}
console.log(misses ? `${misses} differ` : "all equal");
process.exit(misses ? 1 : 0);
