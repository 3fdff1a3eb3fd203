/**
 * Marked text to ids with weights. Tokens do not always end where a part begins; what a part begins with is looked up by
 * encoding the text up to it, and held against the ids of the whole.
 * @module
 */
import { DataError } from "../core/errors.ts";
import { encodeRendered, type Tokenizer } from "../tokenizer/mod.ts";
import type { Marked } from "./render.ts";

/** Ids of a whole text and 1 where a token is trained. */
export interface Masked {
  ids: Int32Array;
  weights: Uint8Array;
  /** Boundaries that fell inside a token; that token counts to the part it reaches into. */
  split: number;
  /** EOS was put at the end because the text did not end with one. */
  addedEos: boolean;
}

/**
 * Encodes a text, marks its parts and sees to its ends: BOS at most once and never trained, EOS at the end and trained.
 * @throws {DataError} when the tokenizer has no EOS
 */
export function maskText(tokenizer: Tokenizer, marked: Marked): Masked {
  const { text, spans } = marked;
  const encode = (t: string) => marked.chat ? encodeRendered(tokenizer, t) : tokenizer.encode(t, { special: true });
  const plain = encode(text);
  let split = 0;
  const marks = spans.map(([from, to]) => {
    const [start, end] = [from, to].map((place) => findToken(tokenizer, encode, plain, text, place));
    split += Number(!start!.exact) + Number(!end!.exact);
    return [start!.index, end!.index] as const;
  });
  const ids = withEos(tokenizer, plain, marks.at(-1)?.[1] ?? 0);
  const weights = new Uint8Array(ids.length);
  for (const [from, to] of marks) weights.fill(1, from, to);
  if (ids.length > plain.length) weights[plain.length] = 1;
  // The first token is no one's target, and BOS is not for the model to say.
  if (weights.length > 0) weights[0] = 0;
  return { ids, weights, split, addedEos: ids.length > plain.length };
}

/** Appends EOS where the trained part is the last thing in the row and no end stands there, white space apart. */
function withEos(tokenizer: Tokenizer, ids: Int32Array, partEnd: number): Int32Array {
  if (tokenizer.eos.length === 0) {
    throw new DataError(
      `Cannot train with the tokenizer of '${tokenizer.source}': it has no token that ends a text, so the model would never stop; ` +
        "name one as eos_token in tokenizer_config.json",
    );
  }
  if (partEnd < ids.length) return ids;
  for (let i = ids.length - 1; i >= 0; i--) {
    if (tokenizer.eos.includes(ids[i]!)) return ids;
    if (tokenizer.decode([ids[i]!]).trim() !== "") break;
  }
  const out = new Int32Array(ids.length + 1);
  out.set(ids);
  out[ids.length] = tokenizer.eos[0]!;
  return out;
}

/**
 * The index of the first token that reaches beyond `place`: where the text up to it encodes to the same ids, their number;
 * else the first token whose text, with all that follows, is shorter than the rest.
 */
function findToken(
  tokenizer: Tokenizer,
  encode: (text: string) => Int32Array,
  ids: Int32Array,
  text: string,
  place: number,
): { index: number; exact: boolean } {
  if (place >= text.length) return { index: ids.length, exact: true };
  if (place <= 0) return { index: 0, exact: true };
  const before = encode(text.slice(0, place));
  let same = 0;
  while (same < before.length && before[same] === ids[same]) same++;
  if (same === before.length) return { index: same, exact: true };
  const rest = text.length - place;
  let index = same;
  while (index < ids.length && tokenizer.decode(ids.subarray(index)).length > rest) index++;
  // The token before may begin before the place and reach over it: it belongs to what follows.
  const reaches = tokenizer.decode(ids.subarray(index)).length < rest && index > 0;
  return { index: reaches ? index - 1 : index, exact: false };
}
