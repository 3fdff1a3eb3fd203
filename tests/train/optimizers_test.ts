/**
 * Every optimiser against the library whose name it carries (make_optimizers.py): three steps on a matrix of more than
 * 4096 elements (so that its moments have 8 bits), a small one and a vector; on the reference and on WASM.
 */
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { RecordingBackend } from "../../src/core/recording.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { Params, type ParamSpec } from "../../src/nn/params.ts";
import { dynamicCode } from "../../src/train/dynamic_code.ts";
import { createOptimizer } from "../../src/train/optimizers.ts";
import type { OptimOptions } from "../../src/train/types.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { fileURLToPath } from "node:url";
import { ReferenceBackend } from "../reference/mod.ts";

const file = openSafetensors(fileURLToPath(new URL("../fixtures/optimizers.safetensors", import.meta.url)));
afterAll(() => file.close());
const recorded = (name: string): Float32Array => readFloats(file.tensors.get(name)!);

const SPECS: ParamSpec[] = [["matrix", [17, 255]], ["small", [3, 5]], ["vector", [7]]].map(([name, shape]) => {
  return { name, shape } as ParamSpec;
});

const options = (name: string): OptimOptions => ({
  ...{ name, lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 0 },
  ...(name === "sgd" ? { momentum: 0.9 } : {}),
  ...{ schedule: "constant", warmupSteps: 0, totalSteps: 3 },
});

/** Values after three steps, by parameter. */
async function run(be: Backend, name: string): Promise<Map<string, Float32Array>> {
  const params = new Params(be, SPECS), optimizer = createOptimizer(be, params, options(name));
  const sumSq = { handle: be.alloc(4), byteOffset: 0, dtype: "f32", shape: [1] } as const;
  be.fill(sumSq, 1);
  for (const p of params.list) be.upload(p.value, recorded(`p.${p.name}`));
  for (let t = 1; t <= 3; t++) {
    for (const p of params.list) be.upload(p.grad, recorded(`g${t - 1}.${p.name}`));
    optimizer.begin(1e-2, t);
    optimizer.step(sumSq);
  }
  const out = new Map<string, Float32Array>();
  for (const p of params.list) {
    const x = new Float32Array(p.value.shape.reduce((a, b) => a * b, 1));
    await be.download(p.value, x);
    out.set(p.name, x);
  }
  optimizer.close();
  params.close();
  return out;
}

/** Largest difference from the recorded values: the steps are 1e-2, and f32 leaves 2e-7 of a value of 3. */
const worst = (found: Float32Array, wanted: Float32Array): number =>
  found.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i])), 0);

const backends: [string, () => Backend | Promise<Backend>][] = [
  ["reference", () => new ReferenceBackend()],
  ["wasm", () => createWasmBackend({ threads: 1, maxBytes: 1 << 26 })],
];
describe.each(backends)("on %s", (_, open) => {
  test.each(["adamw_torch", "adamw_8bit", "sgd", "lion_32bit", "adafactor"])(
    "%s gives the library's values",
    async (name) => {
      const be = await open(), found = await run(be, name);
      for (const { name: p } of SPECS) {
        const start = recorded(`p.${p}`), wanted = recorded(`${name}.${p}`);
        expect(worst(start, wanted), "the recorded values moved").toBeGreaterThan(1e-3);
        expect(worst(found.get(p)!, wanted), p).toBeLessThan(2e-6);
      }
      be.close();
    },
  );
});

test("the dynamic codes are bitsandbytes' to the bit", () => {
  expect(dynamicCode(true)).toEqual(recorded("signed"));
  expect(dynamicCode(false)).toEqual(recorded("unsigned"));
});

/** The hyper words uploaded for each group. */
function hypers(specs: ParamSpec[], o: Partial<OptimOptions>): Map<string, number[]> {
  const out = new Map<string, number[]>();
  class Spy extends RecordingBackend {
    override upload(dst: Parameters<Backend["upload"]>[0], src: ArrayBufferView): void {
      if (dst.shape.join() === "8") out.set(`${out.size}`, [...src as Float32Array]);
    }
  }
  const be = new Spy(), params = new Params(be, specs);
  createOptimizer(be, params, { ...options("adamw_torch"), ...o }).begin(0.5, 1);
  return new Map(params.slabs.map((s, i) => [s.group, out.get(`${i}`)!]));
}

test("LoRA+ gives B, vectors and embeddings learning rates of their own, A none; norms and biases may go without decay", () => {
  const specs = ["x.lora_A.weight", "x.lora_B.weight"].map((name) => ({ name, shape: [3, 3] }));
  const tables = ["embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B"].map((n) => ({
    name: n,
    shape: [3, 3],
  }));
  const vectors = ["x.lora_magnitude_vector.weight", "norm.weight", "x.bias"].map((name) => ({ name, shape: [3] }));
  const groups = ["matrix", "lora_b", "magnitude", "lora_embedding", "norm", "bias"],
    all = [...specs, ...tables, ...vectors];
  const words = (i: number, o: Partial<OptimOptions>) => {
    const found = hypers(all, { lr: 2, ...o }); // begin() is at a quarter of it
    return groups.map((g) => found.get(`${g}.f32`)![i]);
  };
  const [rate, decay] = [0.25e-6, 0.1].map(Math.fround);
  expect(words(0, { loraPlusRatio: 16 })).toEqual([0.5, 8, 8, rate, 8, 8]);
  expect(words(4, { loraPlusRatio: 16 })).toEqual([decay, decay, decay, decay, decay, 0]);
  expect(words(0, { decayVectors: false })).toEqual([0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
  expect(words(4, { decayVectors: false })).toEqual([decay, decay, decay, decay, 0, 0]);
  expect(words(4, {})).toEqual(groups.map(() => decay));
});

test.each([["paged_adamw_8bit", "adamw_8bit"], ["paged_lion_32bit", "lion_32bit"]])(
  "%s is %s: bitsandbytes' paging moves state and changes no number",
  async (paged, plain) => {
    expect(await run(new ReferenceBackend(), paged)).toEqual(await run(new ReferenceBackend(), plain));
  },
);

test("an optimiser that does not exist is refused with the names of those that do", () => {
  const be = new RecordingBackend(), params = new Params(be, SPECS);
  expect(() => createOptimizer(be, params, options("adamx"))).toThrow(
    "Cannot use the optimiser 'adamx': there are adamw_torch",
  );
  expect(() => createOptimizer(be, params, { ...options("adamw_torch"), momentum: 0.9 })).toThrow(
    "Cannot use momentum with 'adamw_torch': it acts with sgd alone",
  );
});
