/** What is trained under peft's settings, held against peft itself (make_targets.py). */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parsePeftConfig } from "../../src/formats/peft.ts";
import { type LoraOptions, planFull, planLora } from "../../src/models/adapter.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { expandNames } from "../../src/models/names.ts";
import { familyOf } from "../../src/models/registry.ts";
import { TINY, tinyLora } from "./tiny.ts";

interface Recorded {
  config: HfConfig;
  lora: Record<string, unknown>;
  trained: Record<string, number[]>;
  scales: Record<string, number>;
}
const cases: Recorded[] = JSON.parse(readFileSync(new URL("../fixtures/targets.json", import.meta.url), "utf8"));

/** Settings as adapter_config.json would hold them. */
const options = (lora: Record<string, unknown>): LoraOptions =>
  parsePeftConfig({ peft_type: "LORA", r: 2, lora_alpha: 4, ...lora });

function plan(config: HfConfig, o: LoraOptions) {
  const family = familyOf(config), c = family.config(config);
  return planLora(c, expandNames(family.tensors, c), o);
}

test.each(cases)("$config.model_type with $lora trains what peft trains", ({ config, lora, trained, scales }) => {
  const { specs, adapters } = plan(config, options(lora));
  expect(Object.fromEntries(specs.map((s) => [s.name, s.shape]))).toEqual(trained);
  expect([...adapters].map(([n, a]) => [n, a.scale])).toEqual(
    [...adapters.keys()].map((n) => [n, expect.closeTo(scales[n], 12)]),
  );
  expect(new Set(adapters.keys())).toEqual(new Set(Object.keys(scales)));
});

test("full training names every tensor as transformers does, and keeps no frozen copy", () => {
  const family = familyOf(TINY.qwen3), c = family.config(TINY.qwen3), full = planFull(expandNames(family.tensors, c));
  expect(full.full).toBe(true);
  expect(full.specs.map((s) => s.name)).toContain("model.layers.2.self_attn.k_norm.weight");
  expect(full.specs.map((s) => s.name)).not.toContain("lm_head.weight"); // tied
});

test.each([
  [{ targetModules: ["q_prj"] }, "Cannot adapt 'q_prj': the model has embed_tokens, lm_head, q_proj, k_proj"],
  [
    { targetModules: ["input_layernorm"] },
    "it is neither a linear layer nor the embedding; name it in modules_to_save",
  ],
  [{ targetModules: ["embed_tokens"], dora: true }, "Cannot adapt 'model.embed_tokens' with DoRA"],
  // peft adapts it (no whole part of the name is "proj") and then wraps the adapter.
  [{ targetModules: ["q_proj"], modulesToSave: ["proj"] }, "Cannot train 'proj' whole and adapt it"],
  [{ targetModules: ["q_proj"], modulesToSave: ["q_proj"] }, "no module is left after exclusions"],
  [{ targetModules: ".*q_proj", layersToTransform: [0] }, "Cannot use layers_to_transform with one expression"],
  [{ targetModules: ["q_proj"], modulesToSave: ["lm_heat"] }, "Cannot train 'lm_heat' whole: no module"],
  [{ targetModules: ["q_proj"], layersToTransform: [9] }, "no module is left after exclusions"],
])("%j is refused", (o, why) => {
  expect(() => plan(TINY.llama, tinyLora(o))).toThrow(why);
});
