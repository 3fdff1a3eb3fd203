/**
 * A tokenizer from GGUF metadata: byte-level BPE ("gpt2") and SentencePiece BPE with scores ("llama"), put into the shape of a
 * tokenizer.json. Keys: gguf-py/gguf/constants.py; semantics: llama.cpp src/llama-vocab.cpp, save where the model's own
 * tokenizer.json differs (docs/tokenizers.md).
 * @module
 */
import { ConfigError, FormatError } from "../core/errors.ts";
import { HuggingFaceTokenizer, type Parts } from "./hugging_face.ts";
import { ranksOfMerges, ranksOfScores } from "./merges.ts";
import { describePreTokenizer, PRE_TOKENIZERS } from "./pre_tokenizers.ts";
import { findEnds } from "./ends.ts";
import type { Tokenizer } from "./types.ts";

/** Metadata as src/formats reads it. */
export type GgufMetadata = ReadonlyMap<string, unknown>;

/** `tokenizer.ggml.token_type`. */
const TYPE = { unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The vocabulary as the file has it. */
interface Vocabulary {
  pieces: readonly string[];
  types: ArrayLike<number>;
  /** Pieces without the padding at the end that fills the embedding. */
  size: number;
}

/**
 * Builds the tokenizer of a GGUF file.
 * @param meta the file's metadata
 * @param source path of the file, for messages
 * @throws {FormatError} when keys are missing or contradict each other
 * @throws {ConfigError} for a tokenizer or pre-tokenizer this build does not know
 */
export function tokenizerFromGguf(meta: GgufMetadata, source: string): Tokenizer {
  const model = meta.get("tokenizer.ggml.model");
  const vocabulary = readVocabulary(meta, source);
  const built = model === "gpt2"
    ? byteLevel(meta, vocabulary, source)
    : model === "llama"
    ? sentencePiece(meta, vocabulary, source)
    : null;
  if (!built) {
    throw new ConfigError(
      `Cannot read the tokenizer of '${source}': its kind is '${model}' and this build knows 'gpt2' and 'llama'`,
    );
  }
  const id = (name: string) => readId(meta, `tokenizer.ggml.${name}_token_id`, vocabulary.size);
  const spm = model === "llama";
  const addBos = meta.get("tokenizer.ggml.add_bos_token");
  const eos = id("eos") ?? (spm ? 2 : null);
  const turnEnds = [id("eot"), id("eom")].filter((e) => e !== null);
  const special = (i: number) => vocabulary.types[i] === TYPE.control;
  const template = meta.get("tokenizer.chat_template");
  const forTools = meta.get("tokenizer.chat_template.tool_use");
  return new HuggingFaceTokenizer({
    source,
    json: built.json,
    bpe: built.bpe,
    size: vocabulary.size,
    bos: id("bos") ?? (spm ? 1 : null),
    eos: findEnds(eos, turnEnds, vocabulary.pieces, special),
    pad: id("padding"),
    unk: id("unknown") ?? (spm ? 0 : null),
    addBos: typeof addBos === "boolean" ? addBos : built.addBos,
    templates: typeof template === "string"
      ? { main: template, tools: typeof forTools === "string" ? forTools : undefined }
      : null,
  });
}

type Built = Pick<Parts, "json" | "bpe" | "addBos">;

function readVocabulary(meta: GgufMetadata, source: string): Vocabulary {
  const pieces = meta.get("tokenizer.ggml.tokens");
  if (!isStrings(pieces)) {
    throw new FormatError(`Cannot read the tokenizer of '${source}': tokenizer.ggml.tokens is missing`, source);
  }
  const types = (meta.get("tokenizer.ggml.token_type") ?? new Int32Array(pieces.length).fill(1)) as ArrayLike<number>;
  if (types.length < pieces.length) {
    throw new FormatError(
      `Cannot read the tokenizer of '${source}': ${pieces.length} tokens have ${types.length} types`,
      source,
    );
  }
  let size = pieces.length;
  while (size > 0 && types[size - 1] === TYPE.unused && pieces[size - 1] === `[PAD${size - 1}]`) size--;
  return { pieces, types, size };
}

function readId(meta: GgufMetadata, key: string, size: number): number | null {
  const id = meta.get(key);
  return typeof id === "number" && id < size ? id : null;
}

/** The pieces that count, each once; llama.cpp's names for empty ones. */
function distinctPieces(v: Vocabulary, source: string): string[] {
  const seen = new Map<string, number>();
  return Array.from({ length: v.size }, (_, id) => {
    const piece = v.pieces[id] || `[EMPTY_${id}]`, before = seen.get(piece);
    if (before !== undefined) {
      throw new FormatError(`Cannot read the tokenizer of '${source}': '${piece}' is both ${before} and ${id}`, source);
    }
    seen.set(piece, id);
    return piece;
  });
}

/** Pieces found in the text before anything else. `stripRight`: those that swallow the spaces after them. */
function addedTokens(v: Vocabulary, stripRight: (piece: string, special: boolean) => boolean): unknown[] {
  const added: unknown[] = [];
  for (let id = 0; id < v.size; id++) {
    const type = v.types[id]!;
    if (type !== TYPE.control && type !== TYPE.userDefined && type !== TYPE.unknown) continue;
    const special = type !== TYPE.userDefined;
    const content = v.pieces[id] || `[EMPTY_${id}]`;
    added.push({ id, content, special, normalized: false, lstrip: false, rstrip: stripRight(content, special) });
  }
  return added;
}

function byteLevel(meta: GgufMetadata, v: Vocabulary, source: string): Built {
  const name = meta.get("tokenizer.ggml.pre");
  const pre = typeof name === "string" ? PRE_TOKENIZERS.get(name) : undefined;
  if (!pre) {
    throw new ConfigError(
      `Cannot read the tokenizer of '${source}': tokenizer.ggml.pre is ${
        name === undefined ? "missing" : `'${name}'`
      } ` +
        `and this build knows ${
          [...PRE_TOKENIZERS.keys()].join(", ")
        }; use the model's folder with tokenizer.json instead`,
    );
  }
  const merges = meta.get("tokenizer.ggml.merges");
  if (!isStrings(merges)) {
    throw new FormatError(`Cannot read the tokenizer of '${source}': tokenizer.ggml.merges is missing`, source);
  }
  return {
    json: {
      added_tokens: addedTokens(v, () => false),
      normalizer: pre.nfc ? { type: "NFC" } : null,
      pre_tokenizer: describePreTokenizer(pre),
      post_processor: null,
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: { type: "BPE", vocab: {}, merges: [], ignore_merges: pre.ignoreMerges ?? false },
    },
    bpe: { pieces: distinctPieces(v, source), rank: ranksOfMerges(merges) },
    addBos: pre.addBos ?? false,
  };
}

function sentencePiece(meta: GgufMetadata, v: Vocabulary, source: string): Built {
  const scores = meta.get("tokenizer.ggml.scores") as ArrayLike<number> | undefined;
  if (!scores || scores.length < v.size) {
    throw new FormatError(
      `Cannot read the tokenizer of '${source}': tokenizer.ggml.scores is missing or short`,
      source,
    );
  }
  const prefix = meta.get("tokenizer.ggml.add_space_prefix") !== false;
  const mergeable = new Map<string, number>();
  for (let id = 0; id < v.size; id++) {
    const type = v.types[id]!;
    if (type !== TYPE.control && type !== TYPE.unknown && type !== TYPE.byte) mergeable.set(v.pieces[id]!, id);
  }
  const unknown = v.pieces[readId(meta, "tokenizer.ggml.unknown_token_id", v.size) ?? 0];
  const space = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const decoders: unknown[] = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  if (prefix) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  return {
    json: {
      added_tokens: addedTokens(v, phi3Strips(meta)),
      normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, space] } : space,
      pre_tokenizer: null,
      post_processor: null,
      decoder: { type: "Sequence", decoders },
      model: {
        type: "BPE",
        vocab: {},
        merges: [],
        unk_token: unknown,
        fuse_unk: true,
        byte_fallback: true,
      },
    },
    bpe: { pieces: distinctPieces(v, source), rank: ranksOfScores(mergeable, scores) },
    addBos: true,
  };
}

/** Phi-3's turn markers swallow the spaces after them; a GGUF file does not say so, and llama.cpp goes by the model's name. */
function phi3Strips(meta: GgufMetadata): (piece: string) => boolean {
  const phi3 = /phi-?3/i.test(String(meta.get("general.name") ?? ""));
  const not = new Set(["<unk>", "<s>", "<|endoftext|>"]);
  return (piece) => phi3 && !not.has(piece);
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && (value.length === 0 || typeof value[0] === "string");
}
