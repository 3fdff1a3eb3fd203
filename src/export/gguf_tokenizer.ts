/**
 * `tokenizer.ggml.*` for a model that comes with a tokenizer.json: byte-level BPE as "gpt2" with its merges and the name
 * of its pre-tokenizer, SentencePiece BPE as "llama" with scores. What was written is read back and must cut a set of
 * texts as the original does, or the export is refused. Keys: gguf-py's constants.py; contents: conversion/base.py.
 * @module
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import { readJsonObject } from "../formats/peft.ts";
import { typeOfValue } from "../formats/gguf_write.ts";
import type { GgufField } from "../models/mod.ts";
import { type Tokenizer, tokenizerFromGguf } from "../tokenizer/mod.ts";
import { ENDS } from "../tokenizer/ends.ts";
import { preTokenizerName } from "./pre_tokenizer_name.ts";
import { refuseDifferences } from "./tokenizer_probe.ts";

/** tokenizer.ggml.token_type. */
const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The parts of tokenizer.json that are read here. */
interface TokenizerJson {
  readonly model: {
    readonly type?: string;
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges?: readonly (string | readonly [string, string])[];
    readonly byte_fallback?: boolean;
    readonly unk_token?: string | null;
    readonly ignore_merges?: boolean;
  };
  readonly added_tokens?: readonly { id: number; content: string; special?: boolean }[];
  readonly normalizer?: unknown;
  readonly pre_tokenizer?: unknown;
}

/** Added tokens that are control tokens though the file does not call them special (does_token_look_special). */
const LOOKS_SPECIAL = /^<\|.*\|>$|^<｜.*｜>$|^<unused.*>$|^<pad>$|^<mask>$|^<2mass>$|^\[@BOS@\]$/s;

/** Pieces by id, their types, as long as the embedding has rows. */
function listPieces(json: TokenizerJson, rows: number): { pieces: string[]; types: Int32Array } {
  const pieces = Array.from({ length: rows }, (_, id) => `[PAD${id}]`);
  const types = new Int32Array(rows).fill(TYPE.unused);
  const byte = json.model.byte_fallback ? /^<0x[0-9A-F]{2}>$/ : null;
  for (const [piece, id] of Object.entries(json.model.vocab)) {
    if (id >= rows) continue;
    pieces[id] = piece;
    types[id] = byte?.test(piece) ? TYPE.byte : TYPE.normal;
  }
  for (const { id, content, special } of json.added_tokens ?? []) {
    if (id >= rows) continue;
    const control = special || LOOKS_SPECIAL.test(content);
    types[id] = content === json.model.unk_token ? TYPE.unknown : control ? TYPE.control : TYPE.userDefined;
    // llama.cpp looks for user-defined pieces in the text itself, where SentencePiece's mark is a space.
    pieces[id] = types[id] === TYPE.userDefined && json.model.byte_fallback ? content.replaceAll("▁", " ") : content;
  }
  return { pieces, types };
}

/** "a b" for each merge; spaces inside a piece as U+0120, as gguf-py writes them. */
function listMerges(merges: NonNullable<TokenizerJson["model"]["merges"]>): string[] {
  return merges.map((m) => typeof m === "string" ? m : m.map((part) => part.replaceAll(" ", "Ġ")).join(" "));
}

/**
 * Scores that make llama.cpp merge in the order of the merges: minus the place of the first merge that makes a piece;
 * pieces that no merge makes come after. Only the order counts (llama-vocab.cpp, llm_tokenizer_spm).
 */
function scoresOf(json: TokenizerJson, pieces: readonly string[], types: Int32Array): Float32Array {
  const place = new Map<string, number>();
  for (const m of json.model.merges ?? []) {
    const piece = typeof m === "string" ? m.replace(" ", "") : m[0] + m[1];
    if (!place.has(piece)) place.set(piece, place.size);
  }
  let next = place.size;
  return Float32Array.from(pieces, (piece, id) => {
    if (types[id] !== TYPE.normal) return types[id] === TYPE.userDefined ? -1000 : 0;
    return -(place.get(piece) ?? next++);
  });
}

/** Whether a space is put before a text: SentencePiece's add_dummy_prefix, in the forms tokenizer.json has for it. */
function addsSpace(json: TokenizerJson): boolean {
  const text = JSON.stringify([json.normalizer, json.pre_tokenizer]);
  return /"type":"Prepend"/.test(text) || /"prepend_scheme":"(always|first)"/.test(text) ||
    (/"type":"Metaspace"/.test(text) && /"add_prefix_space":true/.test(text));
}

/** The templates of tokenizer_config.json beside the main one, by name. */
function otherTemplates(dir: string): [string, string][] {
  const path = join(dir, "tokenizer_config.json");
  const all = existsSync(path) ? readJsonObject(path).chat_template : undefined;
  if (!Array.isArray(all)) return [];
  return all.filter((t) => t.name !== "default").map((t) => [String(t.name), String(t.template)]);
}

/** Ids and template, which a tokenizer of either kind of file has. */
export function tokenizerIds(tokenizer: Tokenizer): Map<string, GgufField> {
  const out = new Map<string, GgufField>();
  const set = (key: string, value: number | boolean | string | null | undefined) => {
    if (value !== null && value !== undefined) out.set(`tokenizer.${key}`, { value, type: typeOfValue(value) });
  };
  const [eos, ...others] = tokenizer.eos;
  // llama.cpp knows most end markers by their texts (llama-vocab.cpp, special_eog_ids); only others need a key.
  const [eot, eom] = others.filter((id) => !ENDS.has(tokenizer.piece(id)));
  set("ggml.bos_token_id", tokenizer.bos);
  set("ggml.eos_token_id", eos);
  set("ggml.eot_token_id", eot);
  set("ggml.eom_token_id", eom);
  set("ggml.padding_token_id", tokenizer.pad);
  set("ggml.add_bos_token", tokenizer.addBos);
  set("chat_template", tokenizer.template);
  return out;
}

/**
 * The keys for a Hugging Face folder.
 * @param tokenizer the folder's, perhaps with another template, which is the one written
 * @param rows of the embedding: the vocabulary is filled or cut to it
 * @throws {FormatError} when tokenizer.json is missing or broken
 * @throws {ConfigError} for a tokenizer that llama.cpp would not follow
 */
export function tokenizerFields(dir: string, tokenizer: Tokenizer, rows: number): Map<string, GgufField> {
  const path = join(dir, "tokenizer.json");
  if (!existsSync(path)) throw new FormatError(`Cannot export a GGUF: '${dir}' has no tokenizer.json`, path, 0);
  const json = JSON.parse(readFileSync(path, "utf8")) as TokenizerJson;
  if (json.model.type !== "BPE" && !json.model.merges) {
    throw new ConfigError(`Cannot write the tokenizer of '${dir}' as GGUF: its model is ${json.model.type}, not BPE`);
  }
  const { pieces, types } = listPieces(json, rows);
  const out = new Map<string, GgufField>();
  const set = (key: string, value: GgufField["value"]) =>
    out.set(`tokenizer.ggml.${key}`, { value, type: typeOfValue(value) });
  const sentencePiece = json.model.byte_fallback === true;
  set("model", sentencePiece ? "llama" : "gpt2");
  set("pre", sentencePiece ? "default" : preTokenizerName(json, dir));
  set("tokens", pieces);
  if (sentencePiece) set("scores", scoresOf(json, pieces, types));
  set("token_type", types);
  if (sentencePiece) set("add_space_prefix", addsSpace(json));
  else set("merges", listMerges(json.model.merges ?? []));
  const unknown = pieces.indexOf(json.model.unk_token ?? "");
  if (unknown >= 0) set("unknown_token_id", unknown);
  for (const [key, field] of tokenizerIds(tokenizer)) out.set(key, field);
  for (const [name, template] of otherTemplates(dir)) {
    out.set(`tokenizer.chat_template.${name}`, { value: template, type: { type: "string", array: false } });
  }
  refuseDifferences(tokenizer, tokenizerFromGguf(new Map([...out].map(([k, f]) => [k, f.value])), dir), "GGUF");
  return out;
}
