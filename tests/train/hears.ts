/** A program whose steps take long and which is interrupted in the third: prints after which step it heard of it. */
import process from "node:process";
import { turn } from "../../src/core/turn.ts";

let step = 0, heard = 0;
process.on("SIGINT", () => heard ||= step);
await turn();
while (heard === 0 && step < 30) {
  step++;
  for (const from = performance.now(); performance.now() - from < 100;);
  if (step === 3) process.kill(process.pid, "SIGINT");
  await turn();
}
console.log(`heard after step ${heard}`);
process.exit(0);
