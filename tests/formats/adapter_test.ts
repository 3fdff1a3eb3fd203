import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ConfigError, FormatError } from "../../src/core/errors.ts";
import { type Adapter, adapterParts, type AdapterSettings, scaleOf } from "../../src/formats/adapter.ts";
import { isMlxAdapter, readMlx, writeMlx } from "../../src/formats/mlx.ts";
import { isPeftAdapter, parsePeftConfig, readPeft, writePeft } from "../../src/formats/peft.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { inFolder, random, shared } from "./files.ts";

const settings: AdapterSettings = {
  r: 2,
  alpha: 8,
  rslora: false,
  dora: false,
  dropout: 0.1,
  targetModules: ["q_proj", "down_proj"],
  rankPattern: {},
  alphaPattern: {},
  modulesToSave: [],
  bias: "none",
  baseModel: "someone/base",
};

function tensor(seed: number, ...shape: number[]) {
  const next = random(seed);
  return { shape, values: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => next() - 0.5) };
}

const Q = "model.layers.1.self_attn.q_proj";
const DOWN = "model.layers.2.mlp.down_proj";
const adapter: Adapter = {
  settings,
  tensors: new Map([
    [`${Q}.lora_A.weight`, tensor(1, 2, 4)],
    [`${Q}.lora_B.weight`, tensor(2, 3, 2)],
    [`${DOWN}.lora_A.weight`, tensor(3, 2, 6)],
    [`${DOWN}.lora_B.weight`, tensor(4, 4, 2)],
  ]),
};

/** scale · b · a as plain sums. */
function delta(a: Adapter, module: string): number[] {
  const p = adapterParts(a).pairs.get(module)!;
  return Array.from({ length: p.outputs * p.inputs }, (_, n) => {
    const [o, i] = [Math.floor(n / p.inputs), n % p.inputs];
    let sum = 0;
    for (let r = 0; r < p.rank; r++) sum += p.b[o * p.rank + r]! * p.a[r * p.inputs + i]!;
    return p.scale * sum;
  });
}

describe("settings", () => {
  test("patterns are matched at the end of the module's name, the first counts, and rsLoRA takes the root", () => {
    const s = {
      ...settings,
      rankPattern: { "layers.1.self_attn.q_proj": 4, "q_proj": 8 },
      alphaPattern: { "q_.*": 32 },
    };
    expect(scaleOf(s, Q)).toBe(8);
    expect(scaleOf({ ...s, rslora: true }, Q)).toBe(16);
    expect(scaleOf(s, "model.layers.11.self_attn.q_proj")).toBe(4);
    expect(scaleOf(s, "model.layers.1.self_attn.xq_proj")).toBe(4);
  });

  test.each([
    [{ peft_type: "IA3" }, "IA3"],
    [{ lora_bias: true }, "lora_bias"],
    [{ trainable_token_indices: [3] }, "trainable_token_indices"],
    [{ target_parameters: ["mlp.up_proj.weight"] }, "target_parameters"],
    [{ init_lora_weights: "corda" }, "its adapter started as 'corda'"],
    [{ ensure_weight_tying: true, target_modules: ["embed_tokens"] }, "ensure_weight_tying"],
    [{ ensure_weight_tying: true, modules_to_save: ["lm_head"] }, "ensure_weight_tying"],
    [{ layer_replication: [[0, 1]] }, "layer_replication"],
    [{ r: 0 }, "r is 0"],
    [{ lora_alpha: "8" }, "lora_alpha"],
    [{ target_modules: null }, "target_modules"],
    [{ rank_pattern: { a: "b" } }, "rank_pattern"],
  ])("%o is refused by name", (change, part) => {
    const json = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj"], ...change };
    expect(() => parsePeftConfig(json)).toThrow(part);
  });
});

test("settings that act on nothing are read: fan_in_fan_out on linears, ties of what is not trained, names of no module", () => {
  const json = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj"] };
  const s = parsePeftConfig({ ...json, fan_in_fan_out: true, ensure_weight_tying: true, layers_pattern: "h" });
  expect(s).toEqual(parsePeftConfig(json));
});

test("an expression that only Python reads is refused by name", () => {
  expect(() => scaleOf({ ...settings, rankPattern: { "(?i)Q_proj": 2 } }, Q)).toThrow(
    "Cannot use the regular expression '(?:.*\\.)?(?:(?i)Q_proj)'",
  );
});

describe("peft's format", () => {
  test("survives writing and reading", async () => {
    await inFolder(async (dir) => {
      await writePeft(dir, adapter);
      expect(isPeftAdapter(dir)).toBe(true);
      expect(isMlxAdapter(dir)).toBe(false);
      const back = readPeft(dir);
      expect(back.settings).toEqual(settings);
      expect(new Map([...back.tensors].sort())).toEqual(new Map([...adapter.tensors].sort()));
      const file = openSafetensors(join(dir, "adapter_model.safetensors"));
      expect(file.tensors.has(`base_model.model.${Q}.lora_A.weight`)).toBe(true);
      expect(file.metadata).toEqual({ format: "pt" });
      file.close();
    });
  });

  const dora = shared("golden/llama-dora/adapter");
  test.skipIf(!dora)("adapters that peft wrote are read and written again alike (needs ../shared/golden)", async () => {
    for (const name of ["llama", "llama-dora", "llama-rslora", "phi3"]) {
      const from = shared(`golden/${name}/adapter`)!;
      const a = readPeft(from);
      const parts = adapterParts(a);
      expect(parts.whole.size + parts.embeddings.size).toBe(0);
      expect([...parts.pairs.values()].every((p) => (p.magnitude !== null) === (name === "llama-dora"))).toBe(true);
      await inFolder(async (dir) => {
        await writePeft(dir, a);
        const [x, y] = [from, dir].map((d) => openSafetensors(join(d, "adapter_model.safetensors")));
        expect([...y!.tensors.keys()].sort()).toEqual([...x!.tensors.keys()].sort());
        for (const t of x!.tensors.values()) expect(readFloats(y!.tensors.get(t.name)!)).toEqual(readFloats(t));
        const [theirs, ours] = [from, dir].map((d) => JSON.parse(readFileSync(join(d, "adapter_config.json"), "utf8")));
        for (const [key, value] of Object.entries(ours)) {
          const wish = key === "target_modules" ? expect.arrayContaining(theirs[key]) : theirs[key];
          expect(value, key).toEqual(wish);
        }
        x!.close();
        y!.close();
      });
    }
  });

  test("refuses half a pair, a rank that is not the settings', and pickles", async () => {
    const half = new Map(adapter.tensors);
    half.delete(`${Q}.lora_B.weight`);
    expect(() => adapterParts({ settings, tensors: half })).toThrow("lora_B is missing");
    expect(() => adapterParts({ ...adapter, settings: { ...settings, r: 3 } })).toThrow("its rank is 2");
    expect(() => adapterParts({ ...adapter, settings: { ...settings, dora: true } })).toThrow("magnitude");
    await inFolder(async (dir) => {
      await writePeft(dir, adapter);
      mkdirSync(join(dir, "old"));
      writeFileSync(join(dir, "old/adapter_config.json"), readFileSync(join(dir, "adapter_config.json")));
      expect(() => readPeft(join(dir, "old"))).toThrow("it has no adapter_model.safetensors");
      writeFileSync(join(dir, "old/adapter_model.bin"), "");
      expect(() => readPeft(join(dir, "old"))).toThrow(ConfigError);
      writeFileSync(join(dir, "adapter_config.json"), "{");
      expect(() => readPeft(dir)).toThrow(FormatError);
    });
  });
});

describe("mlx-lm's format", () => {
  test("has transposed pairs, one scale, and counts layers from the last", async () => {
    await inFolder(async (dir) => {
      await writeMlx(dir, adapter, 3);
      expect(isMlxAdapter(dir)).toBe(true);
      const json = JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8"));
      expect(json).toMatchObject({
        fine_tune_type: "lora",
        num_layers: 2,
        lora_parameters: { rank: 2, scale: 4, dropout: 0.1, keys: ["mlp.down_proj", "self_attn.q_proj"] },
      });
      const file = openSafetensors(join(dir, "adapters.safetensors"));
      expect(file.tensors.get(`${Q}.lora_a`)!.shape).toEqual([4, 2]);
      expect(file.tensors.get(`${Q}.lora_b`)!.shape).toEqual([2, 3]);
      file.close();
      const back = readMlx(dir);
      expect(back.settings).toMatchObject({ r: 2, alpha: 8, targetModules: ["down_proj", "q_proj"] });
      expect(new Map([...back.tensors].sort())).toEqual(new Map([...adapter.tensors].sort()));
    });
  });

  test("keeps the meaning of pairs of several ranks and scales, and of DoRA", async () => {
    await inFolder(async (dir) => {
      const mixed: Adapter = {
        settings: { ...settings, dora: true, rankPattern: { down_proj: 3 } },
        tensors: new Map([
          ...adapter.tensors,
          [`${Q}.lora_magnitude_vector`, tensor(5, 3)],
          [`${DOWN}.lora_A.weight`, tensor(3, 3, 6)],
          [`${DOWN}.lora_B.weight`, tensor(4, 4, 3)],
          [`${DOWN}.lora_magnitude_vector`, tensor(6, 4)],
        ]),
      };
      await writeMlx(dir, mixed, 3);
      const back = readMlx(dir);
      for (const module of [Q, DOWN]) {
        const [got, wish] = [delta(back, module), delta(mixed, module)];
        got.forEach((x, i) => expect(x).toBeCloseTo(wish[i]!, 6));
        expect(adapterParts(back).pairs.get(module)!.magnitude).toEqual(
          adapterParts(mixed).pairs.get(module)!.magnitude,
        );
      }
    });
  });

  test("refuses what it cannot say", async () => {
    await inFolder(async (dir) => {
      const whole: Adapter = { settings, tensors: new Map([...adapter.tensors, ["lm_head.weight", tensor(9, 2, 2)]]) };
      await expect(writeMlx(dir, whole, 3)).rejects.toThrow("lm_head.weight");
      writeFileSync(join(dir, "adapter_config.json"), `{"fine_tune_type":"full","lora_parameters":{}}`);
      expect(() => readMlx(dir)).toThrow("full");
    });
  });
});
