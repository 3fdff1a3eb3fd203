/** The tiny models of ../shared/golden with their recorded answers, opened for inference. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Backend } from "../../src/core/backend.ts";
import type { FloatTensor } from "../../src/formats/adapter.ts";
import { readPeft } from "../../src/formats/peft.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readBytes, readFloats } from "../../src/formats/stored.ts";
import { loadModel, type Model, openModel, writeAdapter } from "../../src/models/mod.ts";

export const SHARED: string = fileURLToPath(new URL("../../../shared/", import.meta.url));
export const GOLDEN: string = join(SHARED, "golden");
export const REAL: string = join(SHARED, "golden-real");
export const present: boolean = existsSync(GOLDEN);

/** Values of a golden.safetensors. */
export interface Record_ {
  ints(name: string): Int32Array;
  floats(name: string): Float32Array;
  shape(name: string): readonly number[];
  /** Tensors whose name begins with `prefix`, without it. */
  under(prefix: string): Map<string, FloatTensor>;
}

export function readGolden(dir: string): Record_ {
  const file = openSafetensors(join(dir, "golden.safetensors"));
  const get = (name: string) => {
    const t = file.tensors.get(name);
    if (!t) throw new Error(`Cannot find '${name}' in ${dir}`);
    return t;
  };
  return {
    ints: (name) => Int32Array.from(new BigInt64Array(readBytes(get(name)).slice().buffer), Number),
    floats: (name) => readFloats(get(name)),
    shape: (name) => get(name).shape,
    under: (prefix) =>
      new Map(
        [...file.tensors].filter(([n]) => n.startsWith(prefix))
          .map(([n, t]) => [n.slice(prefix.length), { shape: t.shape, values: readFloats(t) }]),
      ),
  };
}

/** The model with its adapter as it was before training, or as it was after. */
export async function loadGolden(dir: string, be: Backend, when: "before" | "after"): Promise<Model> {
  const source = openModel(dir), full = JSON.parse(readFileSync(join(dir, "case.json"), "utf8")).full === true;
  const adapter = full ? null : readPeft(join(dir, "adapter"));
  const model = await loadModel(source, { backend: be, maxLength: 64, full, lora: adapter?.settings });
  if (adapter) writeAdapter(model, adapter);
  if (when === "after") writeAdapter(model, { tensors: readGolden(dir).under("final.") });
  source.close();
  return model;
}
