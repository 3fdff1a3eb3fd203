/** Greedy decoding with the key/value cache: prefill, then a token at a time; what the golden tokens are held against. */
import { Arena } from "../../src/core/arena.ts";
import { slice } from "../../src/core/tensor.ts";
import type { Model } from "../../src/models/mod.ts";
import { softcapLogits } from "../../src/nn/head.ts";
import { createRun } from "../../src/nn/run.ts";

/** What greedy decoding gives after one prompt. */
export interface Greedy {
  readonly tokens: number[];
  /** Logits after the prompt, soft-capped. */
  readonly first: Float32Array;
}

const argmax = (x: Float32Array): number => x.reduce((best, y, id) => y > x[best] ? id : best, 0);

/**
 * `steps` tokens after each prompt, side by side, not stopping at any.
 * @throws {Error} when several prompts would not share one set of frequencies (LongRoPE)
 */
export async function greedy(
  model: Model,
  prompts: readonly Int32Array[],
  steps: number,
  adapters: boolean,
): Promise<Greedy[]> {
  const S = prompts.length, { ropeTurn, vocab } = model.config, longest = Math.max(...prompts.map((p) => p.length));
  if (S > 1 && longest + steps > ropeTurn) throw new Error(`Cannot decode past ${ropeTurn} tokens side by side`);
  const { pass, close } = placePass(model, S, longest + steps, adapters), texts = prompts.map((p) => [...p]);
  const whole = () => pass(texts, texts.map(() => 0));
  const each = (all: Float32Array) => texts.map((_, s) => all.subarray(s * vocab, (s + 1) * vocab));
  const first = each(await whole());
  let logits = first;
  for (let i = 0; i < steps; i++) {
    // Where the frequencies have changed with the length, so have all earlier keys.
    const at = texts.map((t) => t.length), again = at[0] >= ropeTurn;
    logits.forEach((x, s) => texts[s].push(argmax(x)));
    if (i + 1 < steps) logits = each(again ? await whole() : await pass(texts.map((t) => t.slice(-1)), at));
  }
  close();
  return prompts.map((p, s) => ({ tokens: texts[s].slice(p.length), first: first[s] }));
}

/** A cache of S texts of up to `length` tokens, and the pass that reads and writes it. */
function placePass({ be, config: c, decoder }: Model, S: number, length: number, adapters: boolean) {
  const arena = new Arena(be, (48 + 16 * S) * 1048576), place = (n: number) => arena.tensor("i32", n);
  const layers = () => Array.from({ length: c.layers }, () => arena.act(S, length, c.kvHeads, c.headDim));
  const k = layers(), v = layers(), last = place(S), inputs = [0, 1, 2].map(() => place(S * length));
  /** Writes the tokens of each text at its place in the cache; logits [S,V] after the last of each, soft-capped. */
  const pass = async (texts: readonly number[][], at: readonly number[]): Promise<Float32Array> => {
    const n = texts.map((t) => t.length), N = n.reduce((a, b) => a + b), mark = arena.mark();
    decoder.prepare(Math.max(...at.map((from, s) => from + n[s])));
    const [ids, pos, seq] = inputs.map((t) => slice(t, 0, N));
    be.upload(ids, Int32Array.from(texts.flat()));
    be.upload(pos, Int32Array.from(texts.flatMap((t, s) => t.map((_, i) => at[s] + i))));
    be.upload(seq, Int32Array.from(texts.flatMap((t, s) => t.map(() => s))));
    let end = 0;
    be.upload(last, Int32Array.from(n, (m) => (end += m) - 1));
    const run = createRun({ be, arena, pos, cu: seq, maxLen: length, cache: { k, v, seq }, adapters });
    const hidden = decoder.forward(ids, run), wanted = arena.act(S, c.dim);
    be.embed(wanted, hidden, last, 1); // taking rows by number is what an embedding does
    const logits = decoder.logits(wanted, run), out = new Float32Array(S * c.vocab);
    const wide = be.actDtype === "f32" ? logits : arena.tensor("f32", S, c.vocab);
    if (wide !== logits) be.copy(wide, logits);
    await be.download(wide, out);
    arena.release(mark);
    softcapLogits(out, c.logitSoftcap);
    return out;
  };
  return { pass, close: () => arena.close() };
}

/** log softmax. */
export function logProbs(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const lse = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return Float64Array.from(logits, (x) => x - lse);
}
