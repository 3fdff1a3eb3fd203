/** Text that grows token by token, with real tokenizers: byte-level BPE and SentencePiece with byte fallback. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { AnswerText, Detokenizer } from "../../src/infer/text.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import type { Tokenizer } from "../../src/tokenizer/types.ts";
import { cannotUnpack, unpack, type Unpacked } from "../golden/tokenizer_cases.ts";
import { SHARED } from "./golden.ts";

const TEXTS = [
  "Hello world, this is   a test.\n\n\tdef f(x): return x ** 2\n",
  "naïve café — “quotes” … €100 ½",
  "日本語のテキストと한국어, 中文字符；العربية עברית ไทย",
  "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 𝕏𝄞 🤷🏽‍♀️ z̷̢̛a̸l̶g̵o̷",
  " leading space, trailing space ",
];

const why = existsSync(join(SHARED, "golden-tokenizers")) ? cannotUnpack() : "needs ../shared/golden-tokenizers";
describe.skipIf(why)(
  `growing text${why ? ` (${why})` : ""}`,
  () => {
    let files: Unpacked;
    const loaded = new Map<string, Tokenizer>();
    const get = (name: string): Tokenizer => {
      const found = loaded.get(name) ?? loadTokenizer(
        name === "smollm2" ? join(SHARED, "models/SmolLM2-135M-Instruct.Q4_1.gguf") : files.find(name)!,
      );
      loaded.set(name, found);
      return found;
    };
    beforeAll(() => void (files = unpack(join(SHARED, "golden-tokenizers"))));
    afterAll(() => files.close());

    describe.each(["smollm2", "llama2", "llama3_1", "qwen3", "gemma3"])("of %s", (name) => {
      test("is the text itself, in whole characters, after any prompt", () => {
        const t = get(name), prompt = t.encode("Answer:");
        for (const text of TEXTS) {
          const ids = t.encode(text);
          const whole = t.decode([...prompt, ...ids], { skipSpecial: true });
          const d = new Detokenizer(t, prompt);
          const parts = Array.from(ids, (id) => d.push(id));
          for (const p of parts) expect(p).not.toContain("\ufffd");
          expect(t.decode(prompt, { skipSpecial: true }) + parts.join("") + d.flush()).toBe(whole);
        }
      });
      test("of random tokens loses no word and no token", () => {
        const t = get(name), r = new Random(3);
        for (let round = 0; round < 20; round++) {
          const ids = Array.from({ length: 24 }, () => r.below(t.size)).filter((id) => !t.eos.includes(id));
          const a = new AnswerText(t, [], []);
          const out = [...ids.map((id) => a.push(id, null)), a.finish()];
          expect(out.flatMap((w) => w.ids)).toEqual(ids);
          // Bytes that are no characters may be shown otherwise in one piece than in several; the rest is the same.
          const solid = (s: string) => s.replaceAll(/\ufffd+/g, "\ufffd");
          expect(solid(out.map((w) => w.text).join(""))).toBe(solid(t.decode(ids, { skipSpecial: true })));
        }
      });
    });
  },
);
