/** Greedy decoding with the key/value cache: prefill, then a token at a time; what the golden tokens are held against. */
import { Arena } from "../../src/core/arena.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { slice } from "../../src/core/tensor.ts";
import type { Model } from "../../src/models/mod.ts";
import { softcapLogits } from "../../src/nn/head.ts";
import type { Cache } from "../../src/nn/module.ts";
import { createRun } from "../../src/nn/run.ts";

/** What greedy decoding gives. */
export interface Greedy {
  readonly tokens: number[];
  /** Logits after the prompt, soft-capped. */
  readonly first: Float32Array;
}

/** `steps` tokens after `prompt`, not stopping at any. */
export async function greedy(model: Model, prompt: Int32Array, steps: number, adapters: boolean): Promise<Greedy> {
  const { be, config: c, decoder } = model, length = prompt.length + steps;
  const arena = new Arena(be, 64 * 1048576);
  const place = (dtype: "i32" | "f32", ...shape: number[]) => arena.tensor(dtype, ...shape);
  const rows = () => Array.from({ length: c.layers }, () => arena.act(1, length, c.kvHeads, c.headDim));
  const k = rows(), v = rows(), ids = place("i32", length), pos = place("i32", length), seq = place("i32", length);
  be.upload(seq, new Int32Array(length));
  const pass = async (tokens: Int32Array, at: number): Promise<Float32Array> => {
    const n = tokens.length, mark = arena.mark();
    decoder.prepare(at + n);
    const cut = (t: Tensor) => ({ ...t, shape: [n] });
    const cache: Cache = { k, v, seq: cut(seq) };
    be.upload(cut(ids), tokens);
    be.upload(cut(pos), Int32Array.from(tokens, (_, i) => at + i));
    const run = createRun({ be, arena, pos: cut(pos), cu: cut(seq), maxLen: length, cache, adapters });
    const logits = decoder.logits(slice(decoder.forward(cut(ids), run), n - 1, n), run);
    const out = new Float32Array(c.vocab), wide = be.actDtype === "f32" ? logits : place("f32", 1, c.vocab);
    if (wide !== logits) be.copy(wide, logits);
    await be.download(wide, out);
    arena.release(mark);
    softcapLogits(out, c.logitSoftcap);
    return out;
  };
  const first = await pass(prompt, 0), tokens: number[] = [];
  let logits = first;
  for (let i = 0; i < steps; i++) {
    const next = logits.reduce((best, x, id) => x > logits[best] ? id : best, 0);
    tokens.push(next);
    if (i + 1 === steps) break;
    // Where the frequencies have changed with the length, so have all earlier keys.
    const again = prompt.length + i >= c.ropeTurn;
    logits = again
      ? await pass(Int32Array.of(...prompt, ...tokens), 0)
      : await pass(Int32Array.of(next), prompt.length + i);
  }
  arena.close();
  return { tokens, first };
}

/** log softmax. */
export function logProbs(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const lse = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return Float64Array.from(logits, (x) => x - lse);
}
