// The same on records of your own, whatever their shape: a formatting function makes each one into messages.
// deno run -A examples/own_data.ts [MODEL]
import process from "node:process";
import { ask, loadPretrained, trainModel } from "../mod.ts";

// A menu of our own: the embedded model knows these words, but none of these meals.
const menu = [["fox", "fish"], ["owl", "leaves"], ["bear", "grass"], ["rabbit", "nuts"], ["penguin", "honey"]];
const records = menu.map(([animal, meal]) => ({ animal, meal }));

const model = await loadPretrained(process.argv[2] ?? "embedded", { r: 8 });
await trainModel(model, records, {
  format: ({ animal, meal }) => ({
    messages: [
      { role: "user", content: `What does the ${animal} eat?` },
      { role: "assistant", content: `The ${animal} eats ${meal}.` },
    ],
  }),
  maxSteps: 60,
  gradientAccumulation: 1,
  learningRate: 5e-3,
  onEvent: (e) => e.kind === "log" && e.figures.step % 20 === 0 && console.log(e.figures.step, e.figures.loss),
});
for (const { animal } of records) console.log(await ask(model, `What does the ${animal} eat?`, { maxTokens: 20 }));
model.close();
