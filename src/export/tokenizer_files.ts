/**
 * tokenizer.json and tokenizer_config.json for a model that came as a GGUF. They are read back and must cut texts as the
 * GGUF's own tokenizer does.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import type { GgufValue } from "../formats/gguf.ts";
import { type Tokenizer, tokenizerFromJson } from "../tokenizer/mod.ts";
import { describePreTokenizer, PRE_TOKENIZERS } from "../tokenizer/pre_tokenizers.ts";
import { refuseDifferences } from "./tokenizer_probe.ts";

type Meta = ReadonlyMap<string, GgufValue>;
type Json = Record<string, unknown>;

/** tokenizer.ggml.token_type values that stand among added_tokens, with what `special` they get. */
const ADDED: ReadonlyMap<number, boolean> = new Map([[2, true], [3, true], [4, false]]);
const BYTE = 6;
const UNUSED = 5;

interface Vocabulary {
  readonly pieces: readonly string[];
  readonly types: ArrayLike<number>;
  /** Without the padding rows at the end. */
  readonly size: number;
}

function readVocabulary(meta: Meta): Vocabulary {
  const pieces = meta.get("tokenizer.ggml.tokens") as readonly string[];
  const types = meta.get("tokenizer.ggml.token_type") as ArrayLike<number>;
  let size = pieces.length;
  while (size > 0 && types[size - 1] === UNUSED && pieces[size - 1] === `[PAD${size - 1}]`) size--;
  return { pieces, types, size };
}

function vocabJson(v: Vocabulary): Record<string, number> {
  return Object.fromEntries(v.pieces.slice(0, v.size).map((piece, id) => [piece, id]));
}

function addedTokens(v: Vocabulary): Json[] {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return v.pieces.slice(0, v.size).flatMap((content, id) => {
    const special = ADDED.get(v.types[id]!);
    return special === undefined ? [] : [{ id, content, ...flags, special }];
  });
}

/** Puts BOS before a text (tokenizers' TemplateProcessing). */
function templateProcessing(bos: string, id: number): Json {
  const token = { SpecialToken: { id: bos, type_id: 0 } };
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  return {
    type: "TemplateProcessing",
    single: [token, text("A", 0)],
    pair: [token, text("A", 0), token, text("B", 1)],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  };
}

function byteLevelJson(meta: Meta, v: Vocabulary): Json {
  const pre = PRE_TOKENIZERS.get(String(meta.get("tokenizer.ggml.pre")))!;
  return {
    normalizer: pre.nfc ? { type: "NFC" } : null,
    pre_tokenizer: describePreTokenizer(pre),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: pre.ignoreMerges ?? false },
      vocab: vocabJson(v),
      merges: meta.get("tokenizer.ggml.merges"),
    },
  };
}

/** Every pair of pieces that makes a third, best score first: what tokenizers' own SentencePiece converter lists. */
function mergesOfScores(v: Vocabulary, scores: ArrayLike<number>): string[] {
  const ids = new Map<string, number>();
  for (let id = 0; id < v.size; id++) if (v.types[id] !== BYTE && !ADDED.has(v.types[id]!)) ids.set(v.pieces[id]!, id);
  const found: { merge: string; score: number }[] = [];
  for (const [piece, id] of ids) {
    const chars = [...piece];
    for (let cut = 1, left = ""; cut < chars.length; cut++) {
      left += chars[cut - 1];
      const right = piece.slice(left.length);
      if (ids.has(left) && ids.has(right)) found.push({ merge: `${left} ${right}`, score: scores[id]! });
    }
  }
  return found.sort((a, b) => b.score - a.score).map((f) => f.merge);
}

function sentencePieceJson(meta: Meta, v: Vocabulary): Json {
  const prefix = meta.get("tokenizer.ggml.add_space_prefix") !== false;
  const space = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const decoders: Json[] = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  if (prefix) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  const unknown = Number(meta.get("tokenizer.ggml.unknown_token_id") ?? 0);
  return {
    normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, space] } : space,
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: {
      ...{ type: "BPE", dropout: null, unk_token: v.pieces[unknown], continuing_subword_prefix: null },
      ...{ end_of_word_suffix: null, fuse_unk: true, byte_fallback: true, ignore_merges: false },
      vocab: vocabJson(v),
      merges: mergesOfScores(v, meta.get("tokenizer.ggml.scores") as ArrayLike<number>),
    },
  };
}

function configOf(tokenizer: Tokenizer, meta: Meta): Json {
  const unknown = meta.get("tokenizer.ggml.unknown_token_id");
  const piece = (id: number | null | undefined) => id === null || id === undefined ? null : tokenizer.piece(id);
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: piece(tokenizer.bos),
    eos_token: piece(tokenizer.eos[0]),
    pad_token: piece(tokenizer.pad),
    unk_token: typeof unknown === "number" ? piece(unknown) : null,
    add_bos_token: tokenizer.addBos,
    clean_up_tokenization_spaces: false,
    ...(tokenizer.template ? { chat_template: tokenizer.template } : {}),
  };
}

/**
 * The files' texts by name.
 * @param tokenizer the GGUF's, perhaps with another template, which is the one written
 * @throws {ConfigError} when the files would not cut texts as the GGUF's tokenizer does
 */
export function tokenizerFiles(meta: Meta, tokenizer: Tokenizer, source: string): Map<string, string> {
  const kind = meta.get("tokenizer.ggml.model");
  const v = readVocabulary(meta);
  if (kind !== "gpt2" && kind !== "llama") {
    throw new ConfigError(`Cannot write tokenizer.json: the tokenizer of '${source}' is of the kind '${kind}'`);
  }
  const { bos, addBos } = tokenizer;
  const json: Json = {
    ...{ version: "1.0", truncation: null, padding: null },
    added_tokens: addedTokens(v),
    ...(kind === "gpt2" ? byteLevelJson(meta, v) : sentencePieceJson(meta, v)),
    post_processor: addBos && bos !== null ? templateProcessing(tokenizer.piece(bos), bos) : null,
  };
  const config = configOf(tokenizer, meta);
  refuseDifferences(tokenizer, tokenizerFromJson({ tokenizer: json, config }, source), "tokenizer.json");
  return new Map([
    ["tokenizer.json", JSON.stringify(json)],
    ["tokenizer_config.json", JSON.stringify(config, null, 2) + "\n"],
  ]);
}
