/** peft saves the head's own weight beside an adapter on the head (save_embedding_layers): it is read, and it counts. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { FloatTensor } from "../../src/formats/adapter.ts";
import { readPeft } from "../../src/formats/peft.ts";
import { loadModel, openModel, writeAdapter } from "../../src/models/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";

const ROOT = fileURLToPath(new URL("../fixtures/golden/", import.meta.url));
const NAME = "lm_head.base_layer.weight";

/** The head as it lies on the device after `change` was made to the copy in the adapter file. */
async function headAfter(
  change: (t: FloatTensor) => FloatTensor,
): Promise<{ saved: Float32Array; head: Float32Array }> {
  const adapter = readPeft(join(ROOT, "lora-head-adapter", "adapter")), saved = adapter.tensors.get(NAME)!;
  const be = new ReferenceBackend(), source = openModel(join(ROOT, "base-llama"));
  const model = await loadModel(source, { backend: be, maxLength: 8, lora: adapter.settings });
  try {
    writeAdapter(model, { tensors: new Map([...adapter.tensors, [NAME, change(saved)]]) });
    const w = model.weights.get("head")!, head = new Float32Array(saved.values.length);
    const bits = new Uint16Array(head.length);
    await be.download(w, w.dtype === "bf16" ? bits : head);
    if (w.dtype === "bf16") head.set(new Float32Array(Uint32Array.from(bits, (b) => b << 16).buffer));
    return { saved: saved.values, head };
  } finally {
    model.close();
    source.close();
    be.close();
  }
}

test("the copy is the model's own weight, and a differing one replaces it", async () => {
  const same = await headAfter((t) => t),
    doubled = await headAfter((t) => ({ ...t, values: t.values.map((x) => 2 * x) }));
  expect(same.head).toEqual(same.saved);
  expect(doubled.head).toEqual(same.saved.map((x) => 2 * x));
});

test("a copy of another vocabulary is refused by its shape", async () => {
  const cut = (t: FloatTensor) => ({ shape: [t.shape[0] - 1, t.shape[1]], values: t.values.subarray(t.shape[1]) });
  await expect(headAfter(cut)).rejects.toThrow(
    `Cannot use the adapter: its '${NAME}' is [159,32] and the model's [160,32]`,
  );
});
