/**
 * A tokenizer from Hugging Face's files: tokenizer.json, tokenizer_config.json, chat_template.jinja and the ids that
 * generation_config.json says end a text. What the library does otherwise than Rust's tokenizers is rewritten here into parts
 * that it does alike, or refused (docs/tokenizers.md lists each).
 * @module
 */
import { ConfigError, FormatError } from "../core/errors.ts";
import { findEnds } from "./ends.ts";
import { HuggingFaceTokenizer } from "./hugging_face.ts";
import { ranksOfMerges } from "./merges.ts";
import { type Node, rewritePreTokenizer } from "./rewrite.ts";
import type { TemplateSources } from "./template.ts";
import type { Tokenizer } from "./types.ts";

/** The parsed files; all but `tokenizer` may be absent. */
export interface TokenizerFiles {
  /** tokenizer.json */
  tokenizer: Record<string, unknown>;
  /** tokenizer_config.json */
  config?: Record<string, unknown>;
  /** generation_config.json, else config.json: for `eos_token_id` and `bos_token_id`. */
  generation?: Record<string, unknown>;
  /** chat_template.jinja; wins over the template in the config, as in transformers. */
  template?: string;
}

/**
 * Builds the tokenizer of a Hugging Face folder.
 * @param source path of the folder, for messages
 * @throws {FormatError} when tokenizer.json lacks its model
 * @throws {ConfigError} for parts that would not act as they do in Rust's tokenizers
 */
export function tokenizerFromJson(files: TokenizerFiles, source: string): Tokenizer {
  const { config = {}, generation = {} } = files;
  const model = files.tokenizer.model as { type?: string; vocab?: unknown; merges?: unknown } | undefined;
  if (!model?.vocab) {
    throw new FormatError(`Cannot read the tokenizer of '${source}': tokenizer.json has no model`, source);
  }
  if (!Array.isArray(model.merges) || Array.isArray(model.vocab)) {
    throw new ConfigError(
      `Cannot use the tokenizer of '${source}': its model is ${model.type} and this build knows BPE`,
    );
  }
  const added = (files.tokenizer.added_tokens ?? []) as Added[];
  const whole = added.find((t) => t.single_word);
  if (whole) {
    throw new ConfigError(
      `Cannot use the tokenizer of '${source}': '${whole.content}' counts only as a whole word, which this build does not do`,
    );
  }
  const pieces = listPieces(model.vocab, added);
  const special = new Set(added.filter((t) => t.special).map((t) => t.id));
  const idOf = (key: string) => idOfToken(config[key], pieces, added) ?? firstId(generation[key + "_id"]);
  const bos = idOf("bos_token"), eos = idOf("eos_token");
  const ids = (value: unknown) => (Array.isArray(value) ? value : [value]).filter((v) => typeof v === "number");
  return new HuggingFaceTokenizer({
    source,
    json: {
      ...files.tokenizer,
      added_tokens: added,
      normalizer: files.tokenizer.normalizer ?? null,
      pre_tokenizer: rewritePreTokenizer(files.tokenizer.pre_tokenizer as Node | null ?? null, source),
      post_processor: null,
      decoder: files.tokenizer.decoder ?? null,
      model: { ...model, type: "BPE", vocab: {}, merges: [] },
    },
    bpe: { pieces, rank: ranksOfMerges(model.merges as string[] | [string, string][]) },
    size: pieces.length,
    bos,
    eos: findEnds(eos, ids(generation.eos_token_id), pieces, (id) => special.has(id)),
    pad: idOf("pad_token"),
    unk: idOfToken(config.unk_token, pieces, added),
    addBos: bos !== null && addsBos(files.tokenizer.post_processor as Node | null ?? null, config, pieces[bos]!),
    templates: files.template !== undefined ? { main: files.template } : templatesOf(config.chat_template, source),
  });
}

/** An entry of `added_tokens`. */
interface Added {
  id: number;
  content: string;
  special?: boolean;
  single_word?: boolean;
}

/** Pieces by id; ids that no piece has are empty texts. */
function listPieces(vocab: unknown, added: readonly Added[]): string[] {
  const pieces: string[] = [];
  for (const [piece, id] of Object.entries(vocab as Record<string, number>)) pieces[id] = piece;
  for (const { id, content } of added) pieces[id] = content;
  for (let id = 0; id < pieces.length; id++) pieces[id] ??= "";
  return pieces;
}

/** The id of a token named in tokenizer_config.json, as text or as an object with its content. */
function idOfToken(token: unknown, pieces: string[], added: readonly Added[]): number | null {
  const text = typeof token === "string" ? token : (token as { content?: string } | null)?.content;
  if (text === undefined) return null;
  const id = added.find((t) => t.content === text)?.id ?? pieces.indexOf(text);
  return id < 0 ? null : id;
}

function firstId(value: unknown): number | null {
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "number" ? first : null;
}

/** Whether BOS is put before a text: the post-processor's rule, unless tokenizer_config.json says `add_bos_token`. */
function addsBos(post: Node | null, config: Record<string, unknown>, bos: string): boolean {
  if (typeof config.add_bos_token === "boolean") return config.add_bos_token;
  const steps = post?.type === "Sequence" ? post.processors as Node[] : post ? [post] : [];
  return steps.some((step) => {
    const single = step.type === "TemplateProcessing" ? step.single as { SpecialToken?: { id: string } }[] : [];
    return single[0]?.SpecialToken?.id === bos || (Array.isArray(step.cls) && step.cls[0] === bos);
  });
}

function templatesOf(value: unknown, source: string): TemplateSources | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string") return { main: value };
  const named = new Map((value as { name: string; template: string }[]).map((t) => [t.name, t.template]));
  const main = named.get("default");
  if (main === undefined) {
    throw new ConfigError(
      `Cannot choose a chat template of '${source}': it has ${[...named.keys()].join(", ")} and no 'default'`,
    );
  }
  return { main, tools: named.get("tool_use") };
}
