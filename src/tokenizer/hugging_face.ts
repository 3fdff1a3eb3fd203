/**
 * The Tokenizer over @huggingface/tokenizers, whatever it was built from. Adds what the library leaves to its callers: BOS by
 * rule, several ids that end a text, decoding of nothing, and refusal where it would give an undefined id.
 * @module
 */
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { DataError } from "../core/errors.ts";
import { type MergeRank, setRanks } from "./merges.ts";
import { ChatRenderer, type TemplateSources } from "./template.ts";
import type { ChatOptions, Message, Tokenizer } from "./types.ts";

/** Everything a tokenizer is made of. */
export interface Parts {
  source: string;
  /** In the shape of tokenizer.json; its merges may be empty when `rank` is given. */
  json: Record<string, unknown>;
  rank: MergeRank | null;
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

  constructor(private readonly parts: Parts, library?: Library) {
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

/** Builds the library's object; the merges go to `setRanks`. */
function openLibrary(parts: Parts): Library {
  const library = new Library(parts.json, {});
  if (parts.rank) setRanks(library.model, parts.rank);
  return library;
}
