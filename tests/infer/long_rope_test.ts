/** Models whose rotary frequencies depend on the length (dynamic, longrope), across the length at which they change. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createEngine } from "../../src/infer/engine.ts";
import { DecoderRunner } from "../../src/infer/runner.ts";
import { PLAIN } from "../../src/infer/sample.ts";
import { loadModel, openModel } from "../../src/models/mod.ts";
import { relativeNorm } from "../golden/compare.ts";
import { packRows } from "../golden/case.ts";
import { logProbs } from "../golden/decode.ts";
import { packedLogits } from "../golden/tiny.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { byteTokenizer } from "./scripted.ts";

const ROOT = fileURLToPath(new URL("../fixtures/golden/", import.meta.url));
const PROMPT = Int32Array.from({ length: 10 }, (_, i) => 5 + 7 * i), STEPS = 14, CONTEXT = 40;

/** Greedy tokens of whole passes and their log p; tests/golden holds such logits against transformers' at 12 to 40 tokens. */
async function plainAnswer(model: Parameters<typeof packedLogits>[0], length: (n: number) => number) {
  const ids = [...PROMPT], V = model.config.vocab, logp: number[] = [];
  while (ids.length < PROMPT.length + STEPS) {
    const row = Float32Array.from(ids), batch = packRows(row, row.map(() => 1), row, row.length);
    const p = logProbs((await packedLogits(model, batch, length(ids.length))).subarray(-V));
    logp.push(Math.max(...p));
    ids.push(p.indexOf(logp.at(-1)!));
  }
  return { ids: ids.slice(PROMPT.length), logp };
}

test.each([
  ["phi3-longrope", (n: number) => n],
  // The engine keeps one set of frequencies for all that is longer, that of its context.
  ["llama-dynamic", (n: number) => n > 16 ? CONTEXT : n],
])("%s: an answer that grows past 16 tokens is that of whole passes, beside a short one", async (name, length) => {
  const be = new ReferenceBackend(), source = openModel(join(ROOT, name));
  const model = await loadModel(source, { backend: be, maxLength: CONTEXT });
  source.close();
  const want = await plainAnswer(model, length);
  const runner = new DecoderRunner(model, { slots: 2, contextLength: CONTEXT, stepTokens: 7 });
  expect(runner.ropeTurn).toBe(16);
  const engine = createEngine({ model: name, tokenizer: byteTokenizer(), runner, eos: [], waiting: 4 });
  const answer = async (ids: Int32Array, maxTokens: number) => {
    const out = { ids: [] as number[], logp: [] as number[] }, sample = { ...PLAIN, temperature: 0 };
    const request = { ids, maxTokens, stop: [], ignoreEos: true, sample, logprobs: 0 };
    for await (const p of engine.generate(request)) {
      out.ids.push(...p.ids);
      out.logp.push(...p.logprobs!.map((x) => x.logprob));
    }
    return out;
  };
  const [long, short] = await Promise.all([answer(PROMPT, STEPS), answer(PROMPT.slice(0, 4), 9)]);
  expect(long.ids).toEqual(want.ids);
  long.logp.forEach((x, i) => expect(x, `token ${i}`).toBeCloseTo(want.logp[i], 5));
  expect(await answer(PROMPT.slice(0, 4), 9)).toEqual(short);
  expect((await answer(PROMPT, 4)).ids).toEqual(want.ids.slice(0, 4));
  await engine.close();
  model.close();
});

test("the two sides of the turn have other logits", async () => {
  const be = new ReferenceBackend(), source = openModel(join(ROOT, "phi3-longrope"));
  const model = await loadModel(source, { backend: be, maxLength: CONTEXT }), row = Float32Array.from(PROMPT);
  source.close();
  const batch = packRows(row, row.map(() => 1), row, row.length);
  const [short, long] = [await packedLogits(model, batch, 10), await packedLogits(model, batch, 17)];
  expect(relativeNorm(long, short)).toBeGreaterThan(1e-3);
});
