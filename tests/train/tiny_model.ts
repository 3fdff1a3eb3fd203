/** A model of some 20,000 random parameters with a tokenizer and a chat template of its own, as a Hugging Face folder. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeBase } from "../../tools/embedded/base.ts";

const SHAPE = { dim: 32, layers: 2, heads: 4, kvHeads: 2, ffn: 64, context: 128, vocab: 320, documents: 30 };

/** A temporary folder with the model in `model`; `remove` deletes all of it. */
export async function tinyModel(seed = 1): Promise<{ dir: string; model: string; remove(): void }> {
  const dir = mkdtempSync(join(tmpdir(), "unsloth-tiny-")), model = join(dir, "model");
  await writeBase(model, seed, SHAPE);
  return { dir, model, remove: () => rmSync(dir, { recursive: true, force: true }) };
}
