/**
 * The Tokenizer over @huggingface/tokenizers, whatever it was built from. Adds what the library leaves to its callers: BOS by
 * rule, several ids that end a text, decoding of nothing, and refusal where it would give an undefined id.
 * @module
 */
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { DataError } from "../core/errors.ts";
import { type MergeRank, setRanks } from "./merges.ts";
import { ChatRenderer, type TemplateSources } from "./template.ts";
import { cacheWords } from "./words.ts";
import type { ChatOptions, Message, Tokenizer } from "./types.ts";

/** A BPE's pieces by id ("" where an id has none), and which pairs of pieces merge first. */
export interface Bpe {
  pieces: readonly string[];
  rank: MergeRank;
}

/** Everything a tokenizer is made of. */
export interface Parts {
  source: string;
  /** In the shape of tokenizer.json, without vocabulary and merges, which are `bpe`. */
  json: Record<string, unknown>;
  bpe: Bpe;
  size: number;
  bos: number | null;
  /** The first is the one to train. */
  eos: readonly number[];
  pad: number | null;
  unk: number | null;
  addBos: boolean;
  templates: TemplateSources | null;
}

/** See the module. Immutable, apart from the library's cache. */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly size: number;
  readonly bos: number | null;
  readonly eos: readonly number[];
  readonly pad: number | null;
  readonly addBos: boolean;
  readonly template: string | null;
  readonly source: string;
  #library: Library;
  #chat: ChatRenderer;

  private readonly parts: Parts;

  constructor(parts: Parts, library?: Library) {
    this.parts = parts;
    this.size = parts.size;
    this.bos = parts.bos;
    this.eos = parts.eos;
    this.pad = parts.pad;
    this.addBos = parts.addBos && parts.bos !== null;
    this.template = parts.templates?.main ?? null;
    this.source = parts.source;
    this.#library = library ?? openLibrary(parts);
    const text = (id: number | null | undefined) => id === null || id === undefined ? undefined : this.piece(id);
    const specials = { bos_token: text(parts.bos), eos_token: text(parts.eos[0]), pad_token: text(parts.pad) };
    const given = Object.entries({ ...specials, unk_token: text(parts.unk) }).filter(([, t]) => t !== undefined);
    this.#chat = new ChatRenderer(parts.templates, Object.fromEntries(given), parts.source);
  }

  encode(text: string, o: { special?: boolean } = {}): Int32Array {
    const ids = text === "" ? [] : this.#library.encode(text, { add_special_tokens: false }).ids;
    const bos = o.special && this.addBos ? 1 : 0;
    const out = new Int32Array(ids.length + bos);
    if (bos) out[0] = this.bos!;
    for (let i = 0; i < ids.length; i++) {
      if (ids[i] === undefined) {
        throw new DataError(`Cannot encode ${JSON.stringify(text.slice(0, 40))}: '${this.source}' has no piece for it`);
      }
      out[i + bos] = ids[i]!;
    }
    return out;
  }

  /** Ids beyond the vocabulary (padding rows of the embedding) decode to nothing. */
  decode(ids: ArrayLike<number>, o: { skipSpecial?: boolean } = {}): string {
    const known = Array.from(ids).filter((id) => this.#library.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    // The library's clean-up of spaces before punctuation loses text, so a decoding would not encode to the same ids.
    return this.#library.decode(known, {
      skip_special_tokens: o.skipSpecial ?? false,
      clean_up_tokenization_spaces: false,
    });
  }

  piece(id: number): string {
    return this.#library.id_to_token(id) ?? "";
  }

  chat(messages: readonly Message[], o: ChatOptions): string {
    return this.#chat.render(messages, o);
  }

  /** The same tokenizer with another chat template (Jinja source). */
  withTemplate(template: string): HuggingFaceTokenizer {
    return new HuggingFaceTokenizer({ ...this.parts, templates: { main: template } }, this.#library);
  }
}

/** Builds the library's object; its vocabulary, its merges and its words are looked up in ways of our own. */
function openLibrary(parts: Parts): Library {
  const library = new Library(parts.json, {});
  fillVocabulary(library, parts.bpe.pieces);
  setRanks(library.model, parts.bpe.rank);
  cacheWords(library);
  return library;
}

/** Fills the library's tables in one pass, where it would go through an object and two maps. Added tokens are there already. */
function fillVocabulary(library: Library, pieces: readonly string[]): void {
  const model = library.model!;
  for (let id = 0; id < pieces.length; id++) {
    const piece = pieces[id]!;
    if (piece === "" || model.vocab[id] !== undefined) continue;
    model.vocab[id] = piece;
    model.tokens_to_ids.set(piece, id);
  }
  if (model.unk_token !== undefined) model.unk_token_id = model.tokens_to_ids.get(model.unk_token);
}
