// The same on records of your own, whatever their shape: a formatting function makes each one into messages.
// deno run -A examples/own_data.ts [MODEL]
import process from "node:process";
import { ask, loadPretrained, trainModel } from "../mod.ts";

const capitals = [["France", "Paris"], ["Japan", "Tokyo"], ["Peru", "Lima"], ["Kenya", "Nairobi"], ["Norway", "Oslo"]];
const records = capitals.map(([country, capital]) => ({ country, capital }));

const model = await loadPretrained(process.argv[2] ?? "embedded", { r: 8 });
await trainModel(model, records, {
  format: ({ country, capital }) => ({
    messages: [
      { role: "user", content: `What is the capital of ${country}?` },
      { role: "assistant", content: `${capital}. It is in ${country}.` },
    ],
  }),
  maxSteps: 40,
  gradientAccumulation: 1,
  learningRate: 5e-3,
  onEvent: (e) => e.kind === "log" && e.figures.step % 10 === 0 && console.log(e.figures.step, e.figures.loss),
});
console.log(await ask(model, "What is the capital of Peru?", { maxTokens: 20 }));
model.close();
