/** Rotary frequencies of every type and both forms of config against transformers' functions (make_ropes.py). */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { readRope, ropeOf } from "../../src/models/rope.ts";
import { familyOf } from "../../src/models/registry.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { TINY } from "./tiny.ts";

interface Answer {
  kind: string | null;
  length: number;
  freqs: number[];
  factor: number;
}
const cases: { name: string; config: HfConfig; answers: Answer[] }[] = JSON.parse(
  readFileSync(new URL("../fixtures/ropes.json", import.meta.url), "utf8"),
);

test.each(cases)("$name", ({ config, answers }) => {
  const c = familyOf(config).config(config);
  for (const { kind, length, freqs, factor } of answers) {
    const layer = kind === null || kind === "sliding_attention" ? 0 : 1; // gemma 3's pattern of 2: layer 1 is full
    const rope = c.rope(layer, length)!;
    expect(rope.factor).toBeCloseTo(factor, 6);
    expect(rope.freqs.length).toBe(freqs.length);
    rope.freqs.forEach((f, i) => expect(f / freqs[i], `pair ${i} at ${length}`).toBeCloseTo(1, 6)); // recorded in f32
  }
});

test("a layer without rotation says so", () => {
  const c = familyOf({ model_type: "smollm3" });
  const hf = { model_type: "smollm3", hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 8, vocab_size: 9 };
  const config = c.config({ ...hf, intermediate_size: 8, max_position_embeddings: 8 });
  expect(Array.from({ length: 8 }, (_, n) => config.rope(n, 1) === null)).toEqual(
    [false, false, false, true, false, false, false, true],
  );
});

test.each(Object.entries(TINY))("%s reads rope_theta and rope_parameters alike", (_, hf) => {
  const { partial_rotary_factor, ...rest } = hf, partial = partial_rotary_factor ? { partial_rotary_factor } : {};
  const plain = { rope_type: "default", rope_theta: 12345, ...partial };
  const rope_parameters = hf.model_type === "gemma3_text" ? { full_attention: plain } : plain;
  const both = [{ ...hf, rope_theta: 12345, torch_dtype: "float16" }, { ...rest, rope_parameters, dtype: "float16" }]
    .map((c) => familyOf(c).config(c));
  for (let n = 0; n < 3; n++) {
    expect(both[1].rope(n, 9)).toEqual(both[0].rope(n, 9));
    expect(both[1].window(n)).toBe(both[0].window(n));
  }
});

const DEFAULTS = { theta: 1e4, headDim: 8, maxPos: 64 };

test.each([
  [{ rope_scaling: { rope_type: "magic" } }, "Cannot use the rope type 'magic': this build has default, linear"],
  [{ rope_scaling: { type: "linear" } }, "factor is undefined and must be a number"],
  [{ rope_scaling: { type: "longrope", long_factor: [1], short_factor: [1, 1, 1, 1] } }, "long_factor has 1 entries"],
  [{ partial_rotary_factor: 0 }, "Cannot rotate 0 features of a head of 8: they go in pairs"],
  [{ rope_scaling: { type: "linear", factor: 0 } }, "a frequency is no number"],
  [{ rope_parameters: { full_attention: { rope_type: "default" } } }, "by kind of layer ('full_attention')"],
])("a config with %j is refused when it is opened", (hf, why) => {
  expect(() => readRope(hf, { ...DEFAULTS, partial: true })).toThrow(why);
});

test("a family that rotates whole heads has no partial rotary: the default type takes no notice, others are refused", () => {
  expect(readRope({ partial_rotary_factor: 0.5 }, DEFAULTS).dim).toBe(8);
  const linear = { rope_parameters: { rope_type: "linear", factor: 2, partial_rotary_factor: 0.5 } };
  expect(() => readRope(linear, DEFAULTS)).toThrow("Cannot use partial_rotary_factor 0.5 with the rope type 'linear'");
});

test("dynamic frequencies change only beyond the trained length", () => {
  const s = readRope({ rope_scaling: { type: "dynamic", factor: 2 } }, DEFAULTS), plain = readRope({}, DEFAULTS);
  expect(ropeOf(s, 64)).toEqual(ropeOf(plain, 64));
  expect(ropeOf(s, 65).freqs[1]).toBeLessThan(ropeOf(plain, 65).freqs[1]);
});

test("where a file has both forms the older counts, and gemma 3 takes nothing that stands beside its two kinds", () => {
  const s = readRope({ rope_scaling: { type: "linear", factor: 2 }, rope_parameters: { rope_theta: 5 } }, DEFAULTS);
  expect([s.type, s.theta]).toEqual(["linear", 1e4]);
  const flat = { ...TINY.gemma3, rope_parameters: { rope_type: "linear", factor: 8, rope_theta: 777 } };
  const [one, other] = [flat, TINY.gemma3].map((c) => familyOf(c).config(c));
  for (let n = 0; n < 3; n++) expect(one.rope(n, 9)).toEqual(other.rope(n, 9));
});
