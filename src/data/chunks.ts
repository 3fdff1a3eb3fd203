/**
 * Long texts in chunks of equal length: every token of a text is in a chunk, BOS opens the text and EOS closes it, once each,
 * so that a chunk that ends mid-sentence does not teach the model to stop there.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Example, PrepareOptions, Row } from "./types.ts";

type Text = Extract<Example, { kind: "text" }>;
type Chunk = Pick<Row, "ids" | "weights">;

/**
 * A function that takes texts and pieces of texts in order and gives the chunks they complete. Chunks overlap by
 * `chunks.stride` tokens; overlapping tokens are trained in both, as Unsloth's raw-text loader does.
 * @throws {ConfigError} when chunks would not advance
 */
export function chunkTexts(tokenizer: Tokenizer, o: PrepareOptions): (text: Text) => Generator<Chunk> {
  const { size, stride } = o.chunks ?? { size: o.maxLength, stride: 0 };
  if (!(size >= 2 && stride >= 0 && stride < size)) {
    throw new ConfigError(
      `Cannot cut texts into chunks of ${size} tokens that overlap by ${stride}: the overlap must be smaller`,
    );
  }
  if (size > o.maxLength) {
    throw new ConfigError(`Cannot cut texts into chunks of ${size} tokens: a row holds ${o.maxLength}`);
  }
  const length = size, step = length - stride;
  // Tokens of the text not yet in a chunk, after the overlap with the last one.
  let pending: number[] = [], overlap = 0;

  return function* (text) {
    const { first, last } = text.raw ?? { first: true, last: true };
    const fresh = tokenizer.encode(text.text, { special: first });
    for (const id of fresh) pending.push(id);
    if (last && !tokenizer.eos.includes(pending.at(-1) ?? -1)) pending.push(tokenizer.eos[0]!);
    let at = 0;
    for (; pending.length - at >= length; at += step) {
      yield chunkOf(pending.slice(at, at + length));
      overlap = length - step;
    }
    pending = pending.slice(at);
    if (!last) return;
    if (pending.length > overlap) yield chunkOf(pending);
    [pending, overlap] = [[], 0];
  };
}

function chunkOf(tokens: number[]): Chunk {
  const weights = new Uint8Array(tokens.length).fill(1);
  weights[0] = 0;
  return { ids: Int32Array.from(tokens), weights };
}
