/**
 * Asks llama.cpp: node ask.mjs JOBS.json. Each job names a GGUF and gives texts to tokenise and ids to evaluate; the
 * answers go to the job's `out`: tokens.json, and one .f32 file per list of ids with the distribution after each id (after the last one only, with `last`).
 * The model is loaded on the CPU from llama.cpp's own build; nothing of this project is used here.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const jobs = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
for (const { gguf, lora, out, texts = [], ids = [], last = false, greedy = null } of jobs) {
  const vocabOnly = ids.length === 0 && greedy === null;
  const model = await llama.loadModel({ modelPath: gguf, vocabOnly });
  const tokens = texts.map((t) => model.tokenize(t, true));
  const { tokens: special } = model;
  const ends = { bos: special.bos, eos: special.eos, eot: special.eot, addBos: special.shouldPrependBosToken };
  if (vocabOnly) {
    writeFileSync(join(out, "answer.json"), JSON.stringify({ tokens, ends, answer: null, stopped: false }));
    await model.dispose();
    continue;
  }
  const contextSize = Math.max(64, ...ids.map((i) => i.length + 8), greedy ? greedy.ids.length + greedy.max + 8 : 0);
  const context = await model.createContext({
    contextSize,
    sequences: 1,
    threads: 1, // two would spin for each other where other tests run
    flashAttention: false,
    ...(lora ? { lora: { adapters: [{ filePath: lora, scale: 1 }] } } : {}),
  });
  const sequence = context.getSequence();
  for (const [n, list] of ids.entries()) {
    await sequence.clearHistory();
    const ask = { generateNext: { probabilities: true, options: { temperature: 0 } } };
    const wanted = (i) => !last || i === list.length - 1;
    const input = list.map((id, i) => wanted(i) ? [id, ask] : id);
    const answers = (await sequence.controlledEvaluate(input)).filter((_, i) => wanted(i));
    const vocab = answers.at(-1).next.probabilities.size;
    const p = new Float32Array(answers.length * vocab);
    answers.forEach((a, i) => a.next.probabilities.forEach((value, id) => p[i * vocab + id] = value));
    writeFileSync(join(out, `${n}.f32`), p);
  }
  let answer = null;
  if (greedy) {
    await sequence.clearHistory();
    answer = [];
    for await (const id of sequence.evaluate(greedy.ids, { temperature: 0, yieldEogToken: true })) {
      answer.push(id);
      if (model.isEogToken(id) || answer.length >= greedy.max) break;
    }
  }
  const stopped = answer !== null && model.isEogToken(answer.at(-1));
  writeFileSync(join(out, "answer.json"), JSON.stringify({ tokens, ends, answer, stopped }));
  await context.dispose();
  await model.dispose();
}
process.exit(0);
