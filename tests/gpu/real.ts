/**
 * golden-real on CUDA, in f32 and in bf16: `deno run -A --no-config tests/gpu/real.ts DIR MODEL`. A real model's answers and
 * log-probabilities before training, twenty losses, and its answers after, against transformers and peft in f32.
 * @module
 */
import process from "node:process";
import { candidate } from "../../cuda/mod.ts";
import { openCase } from "../golden/case.ts";
import { holds } from "../golden/compare.ts";
import { type RealBounds, runReal } from "../golden/real.ts";

/**
 * bf16 rounds to 2^-9: over the some 200 roundings of 30 layers a logit of 10 to 20 is off by some tenths, its
 * log-probability too, and two tokens nearer than that may change places. A loss is a mean over hundreds of tokens.
 */
const BF16: RealBounds = { curve: 2e-2, logProbs: 0.3, margin: { base: 0.6, tuned: 0.6 } };

const [dir, model] = process.argv.slice(2);
if (!dir || !model) throw new Error("Cannot start: real.ts DIR MODEL");
const c = openCase(dir);
let missed = 0;
for (const actDtype of ["f32", "bf16"] as const) {
  const start = performance.now(), be = await candidate.open({ actDtype });
  try {
    const checks = await runReal(c, be, model, actDtype === "bf16" ? BF16 : undefined), ok = checks.every(holds);
    if (!ok) missed++;
    const row = checks.map((k) => {
      const value = k.bound === 0 ? (k.value === 0 ? `equal ${k.note ?? ""}` : "DIFFERS") : k.value.toExponential(1);
      return `${k.what} ${value}${holds(k) ? "" : ` MISS > ${k.bound} ${k.note ?? ""}`}`;
    });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`golden-real ${actDtype.padEnd(5)}${ok ? "pass" : "MISS"} ${row.join(" · ")} · ${seconds} s`);
  } finally {
    be.close();
  }
}
c.golden.close();
console.log(missed ? `${missed} missed` : "golden-real passes in f32 and bf16");
process.exitCode = missed ? 1 : 0;
