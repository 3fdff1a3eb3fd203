/** The data of a run: from the settings to tokenised rows, some of them held out. @module */
import { existsSync, readFileSync, statSync } from "node:fs";
import { ConfigError } from "../core/errors.ts";
import {
  type Counts,
  countShared,
  type Dataset,
  describeCounts,
  openDataset,
  prepare,
  type PrepareOptions,
  type Rows,
  splitRows,
} from "../data/mod.ts";
import type { ModelSource } from "../models/mod.ts";
import { type Tokenizer, withTemplate } from "../tokenizer/mod.ts";
import { EMBEDDED, embeddedFile } from "./assets.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { findDataset } from "./find_model.ts";
import type { Settings } from "./settings.ts";

/** The tokenizer with the chat template that --chat_template names. */
export function chooseTemplate(tokenizer: Tokenizer, { chat_template: wanted }: Config): Tokenizer {
  if (wanted === null || wanted === "alpaca") return tokenizer;
  if (wanted === "chatml") return withTemplate(tokenizer, wanted);
  if (!existsSync(wanted) || !statSync(wanted).isFile()) {
    throw new ConfigError(`Cannot use --chat_template ${wanted}: it is neither alpaca, chatml nor a file`);
  }
  return withTemplate(tokenizer, readFileSync(wanted, "utf8"));
}

/** What a run trains on and is judged by. */
export interface TrainData {
  readonly dataset: Dataset;
  readonly rows: Rows;
  readonly heldOut: Rows | null;
  readonly counts: Counts;
  readonly notes: readonly string[];
}

/** The data's file or folder, which is looked for before a model is fetched. */
export async function findData(config: Config, context: CliContext): Promise<string> {
  const { eval_file: held } = config;
  if (held !== null && !existsSync(held)) {
    throw new ConfigError(`Cannot use --eval_file ${held}: there is no such file`);
  }
  return await findDataset(config.raw_text_file ?? config.dataset!, config, context);
}

/**
 * Opens, renders and tokenises the data, and holds a part of it out where the settings ask for it.
 * @throws {DataError | ConfigError} what cannot be read, rendered or trained on
 */
export async function loadData(
  settings: Settings,
  path: string,
  tokenizer: Tokenizer,
  source: ModelSource,
  context: CliContext,
): Promise<TrainData> {
  const { terminal, signal } = context, { config, given } = settings;
  const options = { columns: columnMap(config.columns), skipBadRows: config.skip_bad_rows, signal };
  const limit = config.max_samples === null ? {} : { limit: config.max_samples };
  const dataset = await openDataset(path, { ...options, ...limit });
  checkFormat(settings, dataset);
  const maxLength = Math.min(config.max_seq_length, source.config.maxPos), chunks = chunksOf(settings, maxLength);
  const how: PrepareOptions = {
    maxLength,
    // A template that was asked for is used for completions too, which are joined as they stand without one.
    template: config.chat_template === "alpaca" ? "alpaca" : config.chat_template === null ? "auto" : "chat",
    ...(config.chat_template === null ? {} : { templateName: `the chat template ${config.chat_template}` }),
    trainOn: config.train_on_inputs ? "all" : config.response_turns === "last" ? "last" : "answers",
    preference: config.preference,
    vocab: source.config.vocab,
    signal,
    onProgress: (done, total) => terminal.status(done < total ? `Tokenising ${done} of ${total}` : ""),
    ...(chunks ? { chunks } : {}),
  };
  const { rows, counts, notes, preferences } = await prepare(dataset, tokenizer, how);
  if (config.preference !== "refuse" && !preferences) {
    rows.close();
    throw new ConfigError(`Cannot use --preference ${config.preference}: no record of ${dataset.source} has a label`);
  }
  const file = config.eval_file ??
    (config.dataset === "embedded" && !given.has("eval_split")
      ? await embeddedFile(context.packageUrl, EMBEDDED.heldOut)
      : null);
  const cut = chunks ? [`Chunks of ${chunks.size} tokens that share ${chunks.stride}`] : [];
  const all = [...dataset.notes, ...cut, ...notes];
  const told = (
    train: Rows,
    held: Rows,
    of: string,
  ) => [...all, `Held out: ${held.length} ${of}`, ...shared(train, held)];
  if (file !== null) {
    const held = await prepare(await openDataset(file, options), tokenizer, how), { length } = held.rows;
    const lost = describeCounts(held.counts).slice(1), suspicious = held.notes.filter((n) => n.startsWith("[WARNING]"));
    const more = [...lost, ...suspicious].map((note) => `Of ${file}: ${note}`);
    const notes = [...told(rows, held.rows, `row${length === 1 ? "" : "s"} of ${file}`), ...more];
    return { dataset, rows, heldOut: held.rows, counts, notes };
  }
  const size = config.eval_split;
  if (size === 0) return { dataset, rows, heldOut: null, counts, notes: all };
  if (size >= 1 && !Number.isInteger(size)) {
    throw new ConfigError(`Cannot hold out ${size} rows: --eval_split takes a share under 1 or a whole number`);
  }
  const { train, eval: heldOut } = splitRows(rows, size, config.seed);
  return { dataset, rows: train, heldOut, counts, notes: told(train, heldOut, `of ${rows.length} rows`) };
}

/** A warning where the held-out loss would praise what was learnt by heart. */
function shared(train: Rows, held: Rows): string[] {
  const n = countShared(train, held);
  return n ? [`[WARNING] ${n} of ${held.length} held-out rows are trained on too: their loss says little`] : [];
}

/** @throws {ConfigError} for a setting that cannot act on records of this format */
function checkFormat({ config: c, given }: Settings, { format, source }: Dataset): void {
  const refuse = (flag: string, why: string) => new ConfigError(`Cannot use ${flag}: ${why}`);
  if (c.preference !== "refuse" && format !== "preference" && format !== "completion") {
    throw refuse(`--preference ${c.preference}`, `the records of ${source} have no rejected answers`);
  }
  if (format !== "text") {
    if (c.raw_text_file === null) return;
    throw refuse(`--raw_text_file ${source}`, `it holds ${format} records and no plain text; give it as --dataset`);
  }
  const texts = `${source} holds texts, of which every token is trained`;
  if (given.has("train_on_responses_only") && c.train_on_responses_only) {
    throw refuse("--train_on_responses_only", texts);
  }
  if (given.has("response_turns")) throw refuse("--response_turns", texts);
  if (given.has("chat_template") && c.chat_template !== null) {
    throw refuse(`--chat_template ${c.chat_template}`, `${source} holds texts, which are trained as they stand`);
  }
}

/**
 * How --raw_text_file is cut. Where a row holds less than --chunk_size is by default, the default overlap shrinks with it.
 * @throws {ConfigError} for a size or an overlap that was asked for and cannot be
 */
function chunksOf({ config: c, given }: Settings, maxLength: number): { size: number; stride: number } | null {
  if (c.raw_text_file === null) return null;
  const size = Math.min(c.chunk_size, maxLength);
  if (given.has("chunk_size") && size < c.chunk_size) {
    throw new ConfigError(
      `Cannot use --chunk_size ${c.chunk_size}: a row holds ${maxLength} tokens, by --max_seq_length or by the model`,
    );
  }
  const stride = given.has("stride") ? c.stride : Math.floor(c.stride * size / c.chunk_size);
  if (stride >= size) {
    throw new ConfigError(`Cannot use --stride ${stride}: a chunk holds ${size} tokens, by --max_seq_length`);
  }
  return { size, stride };
}

/** `instruction=question` pairs: our column, the file's. */
function columnMap(pairs: readonly string[]): Record<string, string> {
  const map: Record<string, string> = {};
  for (const pair of pairs) {
    const at = pair.indexOf("="), ours = pair.slice(0, Math.max(0, at)), theirs = pair.slice(at + 1);
    if (!ours || !theirs) throw new ConfigError(`Cannot read --columns ${pair}: it looks like instruction=question`);
    if (ours in map) throw new ConfigError(`Cannot read --columns: ${ours} is mapped to ${map[ours]} and to ${theirs}`);
    map[ours] = theirs;
  }
  return map;
}
