/** What flows from a dataset to a training step. @module */
import type { Message } from "../tokenizer/types.ts";

/**
 * One record after its format was recognised. A message with `weight` 0 is not trained; `wanted` says whether the answer
 * is one to learn, where the records are rated.
 */
export type Example =
  | { kind: "chat"; messages: Message[]; tools?: unknown[]; wanted?: boolean }
  | {
    kind: "instruction";
    instruction: string;
    input: string;
    output: string;
    system?: string;
    history?: [string, string][];
    wanted?: boolean;
  }
  | { kind: "completion"; prompt: string; completion: string; wanted?: boolean }
  | { kind: "text"; text: string; raw?: RawPart }
  | { kind: "preference"; prompt: Message[]; chosen: Message[]; rejected: Message[]; tools?: unknown[] };

/** Marks a text that is a file, or a piece of one: it is cut into chunks, never cut off. */
export interface RawPart {
  /** It opens the file: BOS stands before it where the tokenizer adds one. */
  first: boolean;
  /** It closes the file: EOS follows. */
  last: boolean;
}

/** The formats a dataset can have; each is one file of src/data/formats. */
export type FormatName = "alpaca" | "sharegpt" | "messages" | "completion" | "text" | "preference";

/** One tokenised row. `weights[i]` is 1 where token i is trained as a target; the first token never is. */
export interface Row {
  ids: Int32Array;
  weights: Uint8Array;
  /** Index of the record in the dataset. */
  source: number;
  /** Tokens cut off at the right. */
  truncated: number;
}

/** Tokenised rows; in memory while they are few, in a temporary file when they are many. */
export interface Rows {
  readonly length: number;
  /** Tokens of row i, without reading it. */
  tokens(i: number): number;
  at(i: number): Row;
  /** Removes the temporary file, if there is one. */
  close(): void;
}

/**
 * One micro-batch, sequences laid end to end: N tokens, S sequences.
 * `targets[n]` is the next token within the sequence; `weights[n]` 0 where it is not trained (always at a sequence's last token).
 */
export interface Batch {
  ids: Int32Array /* [N] */;
  targets: Int32Array /* [N] */;
  weights: Float32Array /* [N], 0 or 1 */;
  pos: Int32Array /* [N], restarting in each sequence */;
  cu: Int32Array /* [S+1] */;
}

/** How a dataset is read. */
export interface DatasetOptions {
  /** "auto" (default) decides from the keys of all records. */
  format?: FormatName | "auto";
  /** Our column to the file's column: `{ instruction: "question", output: "meta.answer" }`. */
  columns?: Readonly<Record<string, string>>;
  /** Values for placeholders: `{ name: "Ada" }` puts Ada where a text has {{name}}. */
  fill?: Readonly<Record<string, string>>;
  /** Count broken records instead of refusing the file. Default false. */
  skipBadRows?: boolean;
  /** Read at most this many records. */
  limit?: number;
  /** Aborted: reading stops with its reason. */
  signal?: AbortSignal;
}

/** A record that was read. */
export interface ReadRecord {
  /** Its place in the dataset, from 0. */
  readonly index: number;
  readonly example: Example;
  /**
   * Says that the record cannot be used after all: it counts as broken with `skipBadRows`.
   * @throws {DataError} with file, line and `why`, without
   */
  refuse(why: string): void;
}

/** A dataset whose format is known. Records are streamed; every call of `examples` starts again. */
export interface Dataset {
  /** File, folder or "rows in memory". */
  readonly source: string;
  readonly format: FormatName;
  /** Sentences to print: what was recognised, from which columns, what was skipped. */
  readonly notes: readonly string[];
  /** Records found, broken ones not counted. */
  readonly records: number;
  /** Broken records skipped (only with `skipBadRows`); grows while `examples` meets records that are not as their format has them. */
  readonly badRows: number;
  examples(): AsyncIterable<ReadRecord>;
}

/** How records become tokens. */
export interface PrepareOptions {
  /** Longest row in tokens; the rest is cut off at the right and counted. */
  maxLength: number;
  /** "auto": the model's chat template where it has one, else the Alpaca template for instructions; completions and texts as they are. */
  template?: "auto" | "alpaca" | "chat";
  /** What the notes call the chat template. Default "the model's chat template". */
  templateName?: string;
  /** What is trained: every assistant turn (default), the last one, or every token. */
  trainOn?: "answers" | "last" | "all";
  /** For preference records: "chosen" trains on the chosen answer; "refuse" (default) throws. */
  preference?: "refuse" | "chosen";
  /**
   * Texts are cut into chunks of `size` tokens that overlap by `stride` tokens. Default for .txt and .md files: `maxLength`
   * and 0. Records with a text column are cut only when this is given.
   */
  chunks?: { size: number; stride: number };
  /** Rows of the model's embedding, to refuse ids that it does not have. */
  vocab?: number;
  /** Use at most this many records. */
  limit?: number;
  /** Host memory that tokenised rows may take before they go to a temporary file, in bytes. Default 512 MiB. */
  memory?: number;
  /** Called now and then with the number of records done. */
  onProgress?: (done: number, total: number) => void;
  /** Aborted: tokenising stops with its reason. */
  signal?: AbortSignal;
}

/** What preflight prints. */
export interface Counts {
  records: number;
  /** Rows to train on. */
  rows: number;
  tokens: number;
  trainedTokens: number;
  /** Rows that were cut, and the tokens lost by it. */
  truncatedRows: number;
  truncatedTokens: number;
  /** Tokens of the longest row before cutting. */
  longest: number;
  /** Records without a trained token (after cutting), left out. */
  dropped: number;
  badRows: number;
}

/** Tokenised data, checked. */
export interface Prepared {
  rows: Rows;
  counts: Counts;
  /** Records had a chosen and a rejected answer, or a label. */
  preferences: boolean;
  /** Sentences to print: template, what is trained, BOS and EOS. */
  notes: string[];
}

/** How rows become micro-batches. */
export interface BatchOptions {
  /** Rows (or packs) in a micro-batch. */
  batchSize: number;
  /** Tokens a pack may hold; null or absent: no packing. */
  packTo?: number | null;
  seed: number;
  /** Default 0; each epoch has its own order. */
  epoch?: number;
  /** Default true. */
  shuffle?: boolean;
  /** Put rows of similar length together. Default false. */
  groupByLength?: boolean;
  /** Micro-batches of this epoch to leave out: where a resumed run goes on. Default 0. */
  start?: number;
  /** Leave out the last micro-batch when it is not full. Default false. */
  dropLast?: boolean;
}
