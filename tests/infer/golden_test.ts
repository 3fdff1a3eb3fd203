/** Reading a prompt in pieces and decoding token by token, against transformers' single pass over the whole text. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { createEngine } from "../../src/infer/engine.ts";
import { DecoderRunner } from "../../src/infer/runner.ts";
import { PLAIN } from "../../src/infer/sample.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { GOLDEN, loadGolden, present, readGolden } from "./golden.ts";
import { byteTokenizer } from "./scripted.ts";

const cases = present ? readdirSync(GOLDEN).sort() : [];
/** Logits, relative to their norm: the bounds of the golden command (rounding of f32, and nothing else). */
const BOUND = { reference: 1e-6, wasm: 1e-5 };
/** Under this margin between the two best logits rounding decides, so the recorded token says nothing. */
const MARGIN = 1e-3;

describe.skipIf(!present)("golden models (needs ../shared/golden)", () => {
  describe.each(["reference", "wasm"] as const)("on %s", (kind) => {
    let be: Backend;
    beforeAll(async () =>
      void (be = kind === "wasm" ? await createWasmBackend({ threads: 2 }) : new ReferenceBackend())
    );
    afterAll(() => be.close());

    test.each(cases)("%s: two texts read in pieces side by side give the logits of one full pass", async (name) => {
      const dir = join(GOLDEN, name), golden = readGolden(dir), model = await loadGolden(dir, be, "before");
      const runner = new DecoderRunner(model, { slots: 2, contextLength: 40, stepTokens: 16 });
      const [B, T, V] = golden.shape("logits"), ids = golden.ints("input_ids"), want = golden.floats("logits");
      const seen = golden.ints("attention_mask");
      let error = 0, norm = 0;
      // Pieces of 7, 5 and then single tokens; sequence 0 lies in slot 1 and the other way round.
      for (let from = 0, n = 7; from < T; from += n, n = from < 12 ? 5 : 1) {
        const at = Array.from({ length: B * n }, (_, i) => ({ b: Math.floor(i / n), t: from + i % n }));
        const logits = await runner.forward({
          ids: Int32Array.from(at, ({ b, t }) => ids[b * T + t]),
          pos: Int32Array.from(at, ({ t }) => t),
          seq: Int32Array.from(at, ({ b }) => 1 - b),
          rows: Int32Array.of(n - 1, 2 * n - 1),
        });
        for (let b = 0; b < B; b++) {
          const t = from + n - 1;
          if (!seen[b * T + t]) continue;
          for (let v = 0; v < V; v++) {
            const w = want[(b * T + t) * V + v];
            error += (logits[b * V + v] - w) ** 2;
            norm += w ** 2;
          }
        }
      }
      runner.close();
      model.close();
      expect(norm).toBeGreaterThan(0);
      expect(Math.sqrt(error / norm)).toBeLessThan(BOUND[kind]);
    });

    test.each(cases)("%s: rows copied from another slot give the same logits to the bit", async (name) => {
      const model = await loadGolden(join(GOLDEN, name), be, "before");
      const runner = new DecoderRunner(model, { slots: 3, contextLength: 24, stepTokens: 16 });
      const step = (pos: number[], seq: number[], rows: number[]) =>
        runner.forward({
          ids: Int32Array.from(pos, (p) => 5 + 7 * p),
          pos: Int32Array.from(pos),
          seq: Int32Array.from(seq),
          rows: Int32Array.from(rows),
        });
      await step([...Array(10).keys()], Array(10).fill(2), [9]);
      await step([0, 1], [0, 0], []);
      runner.share(2, 0, 10);
      const logits = await step([10, 10], [2, 0], [0, 1]), V = model.config.vocab;
      expect([...logits.slice(V)]).toEqual([...logits.slice(0, V)]);
      runner.close();
      model.close();
    });

    test.each(cases)("%s: the greedy answer after training is the recorded one, alone and in company", async (name) => {
      const dir = join(GOLDEN, name), golden = readGolden(dir), model = await loadGolden(dir, be, "after");
      const runner = new DecoderRunner(model, { slots: 2, contextLength: 40, stepTokens: 5 });
      const engine = createEngine({ model: name, tokenizer: byteTokenizer(), runner, eos: [], waiting: 2 });
      const want = [...golden.ints("greedy_tokens")], margin = golden.floats("greedy_margin");
      const sure = margin.findIndex((m) => m < MARGIN);
      const answer = async (ids: Int32Array) => {
        const out: number[] = [];
        const sample = { ...PLAIN, temperature: 0 };
        const request = { ids, maxTokens: want.length, stop: [], ignoreEos: true, sample, logprobs: null };
        for await (const p of engine.generate(request)) out.push(...p.ids);
        return out.slice(0, sure < 0 ? want.length : sure);
      };
      const prompt = golden.ints("greedy_prompt");
      expect(await answer(prompt)).toEqual(want.slice(0, sure < 0 ? want.length : sure));
      const [a, , b] = await Promise.all([answer(prompt), answer(prompt.slice(2)), answer(prompt)]);
      expect([a, b]).toEqual([await answer(prompt), a]);
      await engine.close();
      model.close();
    });
  });
});
