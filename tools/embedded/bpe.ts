/**
 * Trains the embedded model's byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2): words by GPT-2's pattern with
 * single digits (llama.cpp's `smollm`), then the most frequent pair, again and again. Ties go to the pair whose pieces
 * come first, so that the same text gives the same table.
 * @module
 */

/** GPT-2's pattern; digits one by one. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's alphabet: a printable character for each byte. */
export function byteAlphabet(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
}

/** A trained table: merges in the order they were found. */
export interface Bpe {
  readonly merges: readonly (readonly [string, string])[];
}

/** Words of `texts` with their counts, in the byte alphabet. */
function countWords(texts: Iterable<string>): Map<string, number> {
  const alphabet = byteAlphabet(), encoder = new TextEncoder(), counts = new Map<string, number>();
  for (const text of texts) {
    for (const [word] of text.matchAll(WORDS)) {
      const symbols = Array.from(encoder.encode(word), (b) => alphabet[b]).join("");
      counts.set(symbols, (counts.get(symbols) ?? 0) + 1);
    }
  }
  return counts;
}

/**
 * At most `limit` merges; fewer when no pair occurs `least` times.
 * @param texts what to learn from
 */
export function trainBpe(texts: Iterable<string>, limit: number, least = 20): Bpe {
  const words = [...countWords(texts)].map(([w, count]) => ({ pieces: [...w], count }));
  const merges: [string, string][] = [];
  while (merges.length < limit) {
    const best = mostFrequent(words);
    if (!best || best.count < least) break;
    merges.push(best.pair);
    for (const word of words) word.pieces = merge(word.pieces, best.pair);
  }
  return { merges };
}

function mostFrequent(
  words: readonly { pieces: string[]; count: number }[],
): { pair: [string, string]; count: number } | null {
  const counts = new Map<string, number>();
  for (const { pieces, count } of words) {
    for (let i = 0; i + 1 < pieces.length; i++) {
      const key = `${pieces[i]}\t${pieces[i + 1]}`;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  }
  let best: string | null = null, most = 0;
  for (const [key, count] of counts) {
    if (count > most || (count === most && best !== null && key < best)) [best, most] = [key, count];
  }
  return best === null ? null : { pair: best.split("\t") as [string, string], count: most };
}

function merge(pieces: string[], [a, b]: readonly [string, string]): string[] {
  const out: string[] = [];
  for (let i = 0; i < pieces.length; i++) {
    if (pieces[i] === a && pieces[i + 1] === b) {
      out.push(a + b);
      i++;
    } else out.push(pieces[i]);
  }
  return out;
}

/** tokenizer.json of the table; special tokens take the first ids. */
export function tokenizerJson(bpe: Bpe, special: readonly string[]): Record<string, unknown> {
  const pieces = [...special, ...byteAlphabet(), ...bpe.merges.map(([a, b]) => a + b)];
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((p, id) => [p, id])),
      merges: bpe.merges.map((m) => [...m]),
    },
  };
}
