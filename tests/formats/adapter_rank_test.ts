/** Adapters without the directions that training took away: the same function under lower ranks, in every format. */
import { expect, test } from "vitest";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "../../src/core/philox.ts";
import { type Adapter, adapterParts, type AdapterSettings, type LoraPair } from "../../src/formats/adapter.ts";
import { withoutZeroDirections } from "../../src/formats/adapter_rank.ts";
import { readMlx, writeMlx } from "../../src/formats/mlx.ts";

const random = new Random(3);
const SETTINGS: AdapterSettings = {
  ...{ r: 5, alpha: 7, rslora: false, dora: false, dropout: 0, targetModules: ["q_proj", "v_proj"], rankPattern: {} },
  ...{ alphaPattern: {}, modulesToSave: [], bias: "none", baseModel: null },
};
const Q = "model.layers.0.self_attn.q_proj", V = "model.layers.0.self_attn.v_proj";

/** Rank r with all but these directions zero in both factors. */
function pair(module: string, r: number, live: readonly number[], settings: Partial<AdapterSettings> = {}): Adapter {
  const a = new Float32Array(r * 6), b = new Float32Array(4 * r);
  for (const i of live) {
    for (let n = 0; n < 6; n++) a[i * 6 + n] = random.normal();
    for (let o = 0; o < 4; o++) b[o * r + i] = random.normal();
  }
  const tensors = new Map([
    [`${module}.lora_A.weight`, { shape: [r, 6], values: a }],
    [`${module}.lora_B.weight`, { shape: [4, r], values: b }],
  ]);
  return { settings: { ...SETTINGS, ...settings }, tensors };
}

/** scale·B·A, row-major. */
function delta({ a, b, rank, inputs, outputs, scale }: LoraPair): number[] {
  return Array.from({ length: outputs * inputs }, (_, n) => {
    const o = Math.floor(n / inputs), i = n % inputs;
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += b[o * rank + k] * a[k * inputs + i];
    return scale * sum;
  });
}
const deltaOf = (adapter: Adapter, module = Q) => delta(adapterParts(adapter).pairs.get(module)!);

test.each([false, true])("zero directions go and scale·B·A stays, to the last bit (rslora %s)", (rslora) => {
  for (const live of [[0, 1, 2], [1, 4], [3], [0, 1, 2, 3, 4]]) {
    const whole = pair(Q, 5, live, { rslora }), less = withoutZeroDirections(whole);
    expect(less.tensors.get(`${Q}.lora_A.weight`)!.shape).toEqual([live.length, 6]);
    expect(less.tensors.get(`${Q}.lora_B.weight`)!.shape).toEqual([4, live.length]);
    deltaOf(less).forEach((x, i) => expect(x).toBeCloseTo(deltaOf(whole)[i], 14));
  }
});

test("settings say so where a module's rank is its own, before patterns that would say otherwise", () => {
  const { tensors } = pair(V, 3, [0, 1, 2]),
    settings = { rankPattern: { v_proj: 3, q_proj: 5 }, alphaPattern: { v_proj: 6 } };
  const whole = pair(Q, 5, [2, 3], settings);
  const less = withoutZeroDirections({ ...whole, tensors: new Map([...whole.tensors, ...tensors]) });
  expect(Object.entries(less.settings.rankPattern)).toEqual([[Q, 2], ["v_proj", 3], ["q_proj", 5]]);
  expect(Object.entries(less.settings.alphaPattern)).toEqual([[Q, 7 / 5 * 2], ["v_proj", 6]]);
  const { pairs } = adapterParts(less);
  expect([pairs.get(Q)!.rank, pairs.get(Q)!.scale, pairs.get(V)!.rank, pairs.get(V)!.scale]).toEqual([2, 7 / 5, 3, 2]);
});

test("an untrained adapter (B = 0) and one that lost nothing are given back as they are; one direction always stays", () => {
  const fresh = pair(Q, 5, [0, 1, 2, 3, 4]);
  fresh.tensors.get(`${Q}.lora_B.weight`)!.values.fill(0);
  expect(withoutZeroDirections(fresh)).toBe(fresh);
  const dead = withoutZeroDirections(pair(Q, 5, []));
  expect(dead.tensors.get(`${Q}.lora_A.weight`)!.shape).toEqual([1, 6]);
  expect(new Set(deltaOf(dead))).toEqual(new Set([0]));
});

test("mlx-lm's format, which knows one rank, holds the same function", async () => {
  const whole = pair(Q, 5, [1, 2]), other = pair(V, 5, [0, 1, 2, 3]), dir = mkdtempSync(join(tmpdir(), "unsloth-mlx-"));
  const both = { ...whole, tensors: new Map([...whole.tensors, ...other.tensors]) };
  await writeMlx(dir, withoutZeroDirections(both), 1);
  const back = readMlx(dir);
  rmSync(dir, { recursive: true });
  expect(back.settings.r).toBe(4);
  for (const module of [Q, V]) {
    deltaOf(back, module).forEach((x, i) => expect(x).toBeCloseTo(deltaOf(both, module)[i], 6));
  }
});
