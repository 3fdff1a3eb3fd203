/**
 * What `tokenizer.ggml.pre` stands for: how a byte-level BPE cuts text into words before it merges. A GGUF file has only the
 * name; the patterns are those of the models' own tokenizer.json files, of which llama.cpp's are adaptations
 * (src/llama-vocab.cpp, which also gives the names and the defaults for BOS and for words that are pieces as a whole).
 * @module
 */

/** One way of cutting. */
export interface PreTokenizer {
  /** Patterns applied one after the other; a match and what lies between matches are words. */
  readonly split: readonly string[];
  /** A word that is a piece is that piece, whatever the merges would make of it. */
  readonly ignoreMerges?: boolean;
  /** Text is brought into Unicode's composed form first. */
  readonly nfc?: boolean;
  /** BOS is added when the file does not say. */
  readonly addBos?: boolean;
}

const CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/** GPT-2's pattern, which ByteLevel of tokenizer.json has built in. */
export const GPT2: string = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** The pattern of cl100k and its kin: contractions, letters with one leading sign, digits in groups, signs, line ends, spaces. */
function cl100k(digits: string, letters = "\\p{L}", contraction = `${CONTRACTION}|`): string {
  const word = `[^\\r\\n\\p{L}\\p{N}]?${letters === "\\p{L}" ? letters : `[${letters}]`}+`;
  const marks = letters === "\\p{L}" ? "" : "\\p{M}";
  return `${contraction}${word}|${digits}| ?[^\\s\\p{L}${marks}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
}

/** The pattern of o200k and its kin, which also cuts where capitals follow small letters. */
function o200k(digits: string, contraction: string): string {
  const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
  const lead = "[^\\r\\n\\p{L}\\p{N}]?";
  return `${lead}${upper}*${lower}+${contraction}|${lead}${upper}+${lower}*${contraction}|${digits}` +
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
}

const LLAMA3: PreTokenizer = { split: [cl100k("\\p{N}{1,3}")], ignoreMerges: true, addBos: true };
const QWEN2: PreTokenizer = { split: [cl100k("\\p{N}")] };
const GPT: PreTokenizer = { split: [GPT2] };
/** Digits one by one, then as GPT-2. */
const DIGITS: PreTokenizer = { split: ["\\p{N}", GPT2] };

/** By `tokenizer.ggml.pre`: every name that models of our families carry. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ["llama-bpe", LLAMA3],
  ["llama3", LLAMA3],
  ["llama-v3", LLAMA3],
  ["falcon3", LLAMA3],
  ["pixtral", LLAMA3],
  ["midm-2.0", LLAMA3],
  ["lfm2", LLAMA3],
  ["smaug-bpe", { split: LLAMA3.split }],
  ["dbrx", { split: LLAMA3.split }],
  ["qwen2", { ...QWEN2, nfc: true }],
  ["megrez", { ...QWEN2, nfc: true }],
  ["deepseek-r1-qwen", QWEN2],
  ["qwen35", { split: [cl100k("\\p{N}", "\\p{L}\\p{M}")], nfc: true }],
  ["gpt-2", GPT],
  ["phi-2", GPT],
  ["olmo", GPT],
  ["mellum", GPT],
  ["a.x-4.0", GPT],
  ["trillion", GPT],
  ["smollm", DIGITS],
  ["starcoder", DIGITS],
  ["refact", DIGITS],
  ["command-r", DIGITS],
  ["codeshell", DIGITS],
  ["exaone", DIGITS],
  ["minerva-7b", DIGITS],
  ["tekken", { split: [o200k("\\p{N}", "")], ignoreMerges: true, addBos: true }],
  ["gpt-4o", { split: [o200k("\\p{N}{1,3}", `${CONTRACTION}?`)] }],
  ["llama4", { split: [o200k("\\p{N}{1,3}", `${CONTRACTION}?`)] }],
]);

/** The pre-tokenizer as tokenizer.json writes it. */
export function describePreTokenizer(pre: PreTokenizer): Record<string, unknown> {
  const words = pre.split.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }));
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return { type: "Sequence", pretokenizers: [...words, bytes] };
}
