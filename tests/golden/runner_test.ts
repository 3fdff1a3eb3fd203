/** The golden runner itself: it passes what is right and names what is not. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { readBytes } from "../../src/formats/stored.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { findCases, openCase, packRows } from "./case.ts";
import { firstDifference, holds, relativeCurve, relativeNorm, worstNorm } from "./compare.ts";
import { runTiny } from "./tiny.ts";

const ROOT = fileURLToPath(new URL("../fixtures/golden/", import.meta.url));
const BOUNDS = { logits: 1e-5, grads: 5e-5, curve: 2e-4, final: 1e-3 };

const dir = mkdtempSync(join(tmpdir(), "unsloth-golden-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** The case with some recorded values multiplied. */
async function altered(name: string, factors: Readonly<Record<string, number>>): Promise<string> {
  const place = mkdtempSync(join(dir, "case-"));
  cpSync(join(ROOT, name), place, { recursive: true });
  const { base } = JSON.parse(readFileSync(join(place, "case.json"), "utf8"));
  if (base) cpSync(join(ROOT, base), join(place, "..", base), { recursive: true });
  const file = openSafetensors(join(ROOT, name, "golden.safetensors"));
  const tensors = [...file.tensors.values()].map((t): TensorToWrite => {
    const bytes = readBytes(t), factor = factors[t.name];
    if (factor) new Float32Array(bytes.buffer).forEach((x, i, all) => all[i] = x * factor);
    return { name: t.name, dtype: t.dtype, shape: t.shape, chunks: () => [bytes] };
  });
  await writeSafetensors(join(place, "golden.safetensors"), tensors);
  file.close();
  return place;
}

async function missed(path: string): Promise<string[]> {
  const be = await createWasmBackend({ threads: 1 }), c = openCase(path);
  const checks = await runTiny(c, be, BOUNDS, path);
  c.golden.close();
  be.close();
  return checks.filter((x) => !holds(x)).map((x) => x.what);
}

test("a right case has no miss", async () => {
  expect(await missed(join(ROOT, "lora-patterns"))).toEqual([]);
});

test("every recorded number counts: a small change of one is a miss of that one", async () => {
  const name = "model.layers.1.mlp.up_proj.lora_A.weight";
  expect(await missed(await altered("lora-patterns", { [`grad.${name}`]: 1.0001 }))).toEqual(["grad"]);
  expect(await missed(await altered("lora-patterns", { [`final.${name}`]: 1.002 }))).toEqual(["final"]);
  const curves = { loss: 1.00002, logits: 1.00002, loss_curve: 1.0003, grad_norm_curve: 1.0003, lr_curve: 1.000001 };
  expect(await missed(await altered("lora-patterns", curves))).toEqual([
    "logits",
    "loss",
    "loss curve",
    "norm curve",
    "lr",
  ]);
});

test("folders are found by what they hold", () => {
  expect(findCases(ROOT).length).toBe(readdirSync(ROOT).filter((n) => !n.startsWith("base-")).length);
  expect(findCases(join(ROOT, "lora-pissa"))).toEqual([join(ROOT, "lora-pissa")]);
});

test("padded rows become packed sequences, labels become targets one earlier", () => {
  const b = packRows(
    Float32Array.of(5, 6, 7, 8, 9, 0),
    Float32Array.of(1, 1, 1, 1, 1, 0),
    Float32Array.of(-100, 6, 7, 8, 9, -100),
    3,
  );
  expect(b).toEqual({
    ids: Int32Array.of(5, 6, 7, 8, 9),
    targets: Int32Array.of(6, 7, 0, 9, 0),
    weights: Float32Array.of(1, 1, 0, 1, 0),
    pos: Int32Array.of(0, 1, 2, 0, 1),
    cu: Int32Array.of(0, 3, 5),
  });
});

test("comparisons: missing tensors are infinitely far, NaN never holds, margins end a comparison", () => {
  const x = Float32Array.of(3, 4);
  expect(relativeNorm(Float32Array.of(3, 4.5), x)).toBeCloseTo(0.1, 12);
  expect(relativeNorm([1], x)).toBe(Infinity);
  expect(relativeCurve([1.1, 2], [1, 2])).toBeCloseTo(0.1, 12);
  // A loss of 1e-4 is recorded to 6e-4 of it, a loss of 3 to 2e-8.
  expect(relativeCurve([1.0005e-4, 3.003], [1e-4, 3], [1e-4, 3])).toBeCloseTo(1e-3, 6);
  expect(relativeCurve([1.002e-4, 3], [1e-4, 3], [1e-4, 3])).toBeGreaterThan(1e-3);
  expect(worstNorm(new Map([["a", x]]), new Map([["a", x], ["b", x]]))).toEqual({ worst: Infinity, name: "b" });
  expect(worstNorm(new Map([["a", [NaN]], ["b", [1]]]), new Map([["a", [1]], ["b", [2]]])).worst).toBeNaN();
  const tiny = (v: number) => new Map([["tiny", [v]], ["large", [1, 1]]]);
  expect(worstNorm(tiny(1e-8), tiny(-3e-8)).worst).toBe(0);
  expect(worstNorm(tiny(1e-6), tiny(1e-8)).name).toBe("tiny");
  expect(holds({ what: "", value: NaN, bound: 1 })).toBe(false);
  expect(firstDifference([1, 2, 9], [1, 2, 3], [1, 1, 1e-4], 1e-3)).toEqual({ at: null, compared: 2 });
  expect(firstDifference([1, 9, 3], [1, 2, 3], [1, 1, 1], 1e-3)).toEqual({ at: 1, compared: 1 });
});
