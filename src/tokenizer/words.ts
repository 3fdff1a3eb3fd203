/**
 * A cache of whole words for byte-level BPE. The library writes every word anew in the alphabet of bytes, splits it by merges and
 * looks it up; text is mostly words it has seen. Here a word is looked up as it stands, and goes the library's way only once.
 * What a word becomes does not depend on its neighbours, so nothing else changes.
 * @module
 */
import type { Tokenizer as Library } from "@huggingface/tokenizers";

/** Words kept; the cache is emptied when it is full, which is cheaper than to keep an order. */
const WORDS = 1 << 17;
/** Longest word that is kept, in UTF-16 units: longer ones rarely come again. */
const LONGEST = 64;

/** The library's parts as they are used here. */
interface Step {
  pre_tokenize(text: string, options: unknown): string[];
  use_regex?: boolean;
  add_prefix_space?: boolean;
  byte_encoder?: unknown;
}
interface Model {
  encode(words: string[]): string[];
}

/** Puts the cache into a tokenizer whose pre-tokenizer ends in a plain ByteLevel step; leaves any other as it is. */
export function cacheWords(library: Library): void {
  const pre = library.pre_tokenizer as unknown as { tokenizers?: Step[] } | null,
    model = library.model as unknown as Model;
  const bytes = pre?.tokenizers?.at(-1);
  if (!pre?.tokenizers || !bytes?.byte_encoder || bytes.use_regex || bytes.add_prefix_space) return;
  pre.tokenizers = pre.tokenizers.slice(0, -1);
  const encode = model.encode.bind(model), cache = new Map<string, string[]>();
  model.encode = (words) => {
    const pieces: string[] = [];
    for (const word of words) {
      let made = cache.get(word);
      if (made === undefined) {
        made = encode(bytes.pre_tokenize(word, {}));
        if (cache.size >= WORDS) cache.clear();
        if (word.length <= LONGEST) cache.set(word, made);
      }
      for (const piece of made) pieces.push(piece);
    }
    return pieces;
  };
}
