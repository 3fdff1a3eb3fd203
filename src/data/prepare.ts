/** From records to checked rows of tokens, with the counts that are printed before training. @module */
import { ConfigError, DataError } from "../core/errors.ts";
import { turn } from "../core/turn.ts";
import { knowsTools, type Tokenizer } from "../tokenizer/mod.ts";
import { chunkTexts } from "./chunks.ts";
import { type Masked, maskText } from "./mask.ts";
import { chooseRendering, renderExample, type Rendering } from "./render.ts";
import { RowStore } from "./rows.ts";
import { Suspicions } from "./suspicions.ts";
import type { Counts, Dataset, Example, Prepared, PrepareOptions, Row } from "./types.ts";

/** Records between two calls of `onProgress`. */
const PROGRESS = 256;

type TrainOn = NonNullable<PrepareOptions["trainOn"]>;

/** What happens to be noted while rows are made. */
interface Seen {
  split: number;
  addedEos: number;
  tools: boolean;
  preference: boolean;
  /** Turns of weight 0 that are trained all the same, since every token is. */
  weights: boolean;
  renderings: Set<Rendering>;
  suspicions: Suspicions;
}

/**
 * Makes rows of tokens from all records and checks what would otherwise fail silently: a tokenizer without an end, one that
 * does not fit the model, data of which nothing is trained.
 * @param options `maxLength` in tokens, and what to render and to train; see PrepareOptions
 * @returns rows, counts and sentences to print; `rows.close()` removes the temporary file, if there is one
 * @throws {DataError} with file and line for broken records; when no row has a trained token; when the vocabulary does not fit
 * @throws {ConfigError} for lengths that cannot be
 */
export async function prepare(dataset: Dataset, tokenizer: Tokenizer, options: PrepareOptions): Promise<Prepared> {
  checkOptions(tokenizer, options);
  const rows = new RowStore(options.memory);
  const counts: Counts = {
    ...{ records: 0, rows: 0, tokens: 0, trainedTokens: 0, truncatedRows: 0, truncatedTokens: 0 },
    ...{ longest: 0, dropped: 0, badRows: 0 },
  };
  const seen: Seen = {
    ...{ split: 0, addedEos: 0, tools: false, preference: false, weights: false },
    ...{ renderings: new Set<Rendering>(), suspicions: new Suspicions(tokenizer) },
  };
  const total = Math.min(dataset.records, options.limit ?? Infinity);
  try {
    for await (const row of makeRows(dataset, tokenizer, options, counts, seen, total)) {
      addRow(rows, counts, row, options);
    }
    counts.badRows = dataset.badRows;
    if (counts.rows === 0) throw nothingTrained(counts, options);
  } catch (e) {
    rows.close();
    throw e;
  }
  return { rows, counts, preferences: seen.preference, notes: describe(dataset, tokenizer, options, seen) };
}

function checkOptions(tokenizer: Tokenizer, o: PrepareOptions): void {
  if (!(o.maxLength >= 2)) throw new ConfigError(`Cannot make rows of ${o.maxLength} tokens: it takes at least 2`);
  if (o.vocab !== undefined && tokenizer.size > o.vocab) {
    throw new DataError(
      `Cannot train: the tokenizer of '${tokenizer.source}' has ${tokenizer.size} ids and the model's embedding ${o.vocab} rows; ` +
        "they are not of the same model",
    );
  }
  if (tokenizer.eos.length === 0) {
    throw new DataError(
      `Cannot train with the tokenizer of '${tokenizer.source}': it has no token that ends a text, so the model would never stop; ` +
        "name one as eos_token in tokenizer_config.json",
    );
  }
}

/** Rows of all records, before cutting. */
async function* makeRows(
  dataset: Dataset,
  tokenizer: Tokenizer,
  o: PrepareOptions,
  counts: Counts,
  seen: Seen,
  total: number,
): AsyncGenerator<Row> {
  const chunker = chunkTexts(tokenizer, o);
  for await (const { index, example, refuse } of dataset.examples()) {
    if (counts.records === o.limit) break;
    counts.records++;
    if (counts.records % PROGRESS === 0) {
      o.onProgress?.(counts.records, total);
      await turn();
      o.signal?.throwIfAborted();
    }
    if (example.kind === "text" && isEmpty(example)) {
      counts.dropped++;
      continue;
    }
    if (example.kind === "text" && (example.raw || o.chunks)) {
      seen.suspicions.look(example, null);
      for (const row of chunker(example)) yield { ...row, source: index, truncated: 0 };
      continue;
    }
    const masked = maskExample(example, tokenizer, o, seen, refuse);
    if (!masked) continue;
    seen.split += masked.split;
    seen.addedEos += Number(masked.addedEos);
    yield { ids: masked.ids, weights: masked.weights, source: index, truncated: 0 };
  }
  o.onProgress?.(counts.records, total);
}

/** The record's tokens; nothing when it cannot be rendered and such records are left out. */
function maskExample(
  example: Example,
  tokenizer: Tokenizer,
  o: PrepareOptions,
  seen: Seen,
  refuse: (why: string) => void,
): Masked | undefined {
  const rendering = chooseRendering(example.kind, o.template ?? "auto", tokenizer);
  seen.renderings.add(rendering);
  const rendered = (...what: [Parameters<typeof mask>[0], Rendering, TrainOn]): Masked | undefined => {
    try {
      return mask(...what, tokenizer, seen);
    } catch (e) {
      if (!(e instanceof DataError)) throw e;
      refuse(e.message);
    }
  };
  if (example.kind === "preference") {
    if (o.preference !== "chosen") {
      throw new DataError(
        "Cannot fine-tune on preferences: each record has a chosen and a rejected answer; train on the chosen ones alone " +
          "with --preference chosen",
      );
    }
    seen.preference = true;
    const { prompt, chosen, tools } = example;
    const last = { kind: "chat" as const, messages: [...prompt, ...chosen], tools };
    return rendered(last, "chat", o.trainOn === "all" ? "all" : "last");
  }
  if ("wanted" in example) {
    if (o.preference !== "chosen") {
      throw new DataError(
        "Cannot fine-tune on rated answers: each record's 'label' says whether its answer is wanted; train on the wanted " +
          "ones alone with --preference chosen",
      );
    }
    seen.preference = true;
    // A row without a trained token is dropped, and counted.
    if (!example.wanted) return { ids: new Int32Array(0), weights: new Uint8Array(0), split: 0, addedEos: false };
  }
  if (example.kind === "chat" && example.tools) seen.tools = true;
  return rendered(example, rendering, o.trainOn ?? "answers");
}

function mask(
  example: Exclude<Example, { kind: "preference" }>,
  rendering: Rendering,
  trainOn: TrainOn,
  tokenizer: Tokenizer,
  seen: Seen,
): Masked {
  const marked = renderExample(example, rendering, tokenizer, trainOn);
  seen.suspicions.look(example, marked.chat ? marked.text : null);
  if (trainOn === "all" && example.kind === "chat") seen.weights ||= example.messages.some((m) => m.weight === 0);
  return maskText(tokenizer, marked);
}

/** A whole text of white space alone; between the pieces of a long file it may stand. */
function isEmpty({ text, raw }: Extract<Example, { kind: "text" }>): boolean {
  return text.trim() === "" && (!raw || (raw.first && raw.last));
}

/** Cuts the row at the right, counts it, and keeps it when something in it is trained. */
function addRow(rows: RowStore, counts: Counts, row: Row, o: PrepareOptions): void {
  counts.longest = Math.max(counts.longest, row.ids.length);
  const over = Math.max(0, row.ids.length - o.maxLength);
  const kept = over ? { ids: row.ids.slice(0, o.maxLength), weights: row.weights.slice(0, o.maxLength) } : row;
  const trained = kept.weights.reduce((n, w) => n + w, 0);
  if (over) counts.truncatedRows++;
  counts.truncatedTokens += over;
  if (trained === 0) {
    counts.dropped++;
    return;
  }
  rows.push({ ids: kept.ids, weights: kept.weights, source: row.source, truncated: over });
  counts.rows++;
  counts.tokens += kept.ids.length;
  counts.trainedTokens += trained;
}

function nothingTrained(counts: Counts, o: PrepareOptions): DataError {
  if (counts.records === 0) return new DataError("Cannot train: no record could be read");
  return new DataError(
    `Cannot train: in none of ${counts.records} records is a token to train on` +
      (counts.truncatedRows
        ? `; ${counts.truncatedRows} are longer than ${o.maxLength} tokens and were cut before the answer, so raise max_seq_length`
        : "; the texts to train on are empty"),
  );
}

function describe(dataset: Dataset, tokenizer: Tokenizer, o: PrepareOptions, seen: Seen): string[] {
  const names = {
    chat: o.templateName ?? "the model's chat template",
    alpaca: "the Alpaca template",
    plain: "none, the text as it is",
  };
  // Files of plain text are cut into chunks and never rendered.
  const renderings: Rendering[] = seen.renderings.size ? [...seen.renderings] : ["plain"];
  const template = renderings.map((r) => names[r]).join(" and ");
  const what = { answers: "answers", last: "the last answer of each chat", all: "every token" }[o.trainOn ?? "answers"];
  const all = dataset.format === "text";
  const bos = tokenizer.addBos ? `BOS ${tokenizer.piece(tokenizer.bos!)} once` : "no BOS";
  const notes = [
    `Template: ${template}; trained: ${all ? "every token" : what}; ${bos}; EOS ${tokenizer.piece(tokenizer.eos[0]!)}`,
  ];
  if (seen.preference) notes.push("Preferences: trained on the chosen answers alone");
  if (seen.tools && !knowsTools(tokenizer)) {
    notes.push("The chat template knows no functions: they are written into the messages as Qwen2.5 writes them");
  }
  if (dataset.format === "completion" && seen.renderings.has("plain") && tokenizer.template !== null) {
    notes.push(
      "Prompts and completions are joined as they stand, without the chat template; for chats map the columns: " +
        "--columns instruction=prompt output=completion",
    );
  }
  if (seen.weights) notes.push("Turns of weight 0 are trained too, since every token is");
  if (seen.addedEos && seen.renderings.has("chat")) {
    notes.push(`EOS put after ${seen.addedEos} chats, since the template does not end them`);
  }
  if (seen.split) {
    notes.push(`${seen.split} answers begin or end inside a token; it counts to the part it reaches into`);
  }
  return [...notes, ...seen.suspicions.notes()];
}
