/**
 * Asks llama.cpp: node ask.mjs JOBS.json. Each job names a GGUF and gives texts to tokenise and ids to evaluate; the
 * answers go to the job's `out`: tokens.json, and one .f32 file per list of ids with the distribution after each id.
 * The model is loaded on the CPU from llama.cpp's own build; nothing of this project is used here.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const jobs = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
for (const { gguf, lora, out, texts = [], ids = [], greedy = null } of jobs) {
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
    threads: 2,
    flashAttention: false,
    ...(lora ? { lora: { adapters: [{ filePath: lora, scale: 1 }] } } : {}),
  });
  for (const [n, list] of ids.entries()) {
    const sequence = context.getSequence();
    const ask = { generateNext: { probabilities: true, options: { temperature: 0 } } };
    const answers = await sequence.controlledEvaluate(list.map((id) => [id, ask]));
    const vocab = answers.at(-1).next.probabilities.size;
    const p = new Float32Array(list.length * vocab);
    answers.forEach((a, i) => a.next.probabilities.forEach((value, id) => p[i * vocab + id] = value));
    writeFileSync(join(out, `${n}.f32`), p);
    sequence.dispose();
  }
  let answer = null;
  if (greedy) {
    const sequence = context.getSequence();
    answer = [];
    for await (const id of sequence.evaluate(greedy.ids, { temperature: 0, yieldEogToken: true })) {
      answer.push(id);
      if (model.isEogToken(id) || answer.length >= greedy.max) break;
    }
    sequence.dispose();
  }
  const stopped = answer !== null && model.isEogToken(answer.at(-1));
  writeFileSync(join(out, "answer.json"), JSON.stringify({ tokens, ends, answer, stopped }));
  await context.dispose();
  await model.dispose();
}
process.exit(0);
