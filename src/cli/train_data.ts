/** The data of a run: from the settings to tokenised rows, some of them held out. @module */
import { existsSync, readFileSync } from "node:fs";
import { ConfigError } from "../core/errors.ts";
import {
  type Counts,
  type Dataset,
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
  if (!existsSync(wanted)) {
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
  { config, given }: Settings,
  path: string,
  tokenizer: Tokenizer,
  source: ModelSource,
  context: CliContext,
): Promise<TrainData> {
  const { terminal, signal } = context;
  const options = { columns: columnMap(config.columns), skipBadRows: config.skip_bad_rows, signal };
  const limit = config.max_samples === null ? {} : { limit: config.max_samples };
  const dataset = await openDataset(path, { ...options, ...limit });
  checkPreference(config, dataset);
  const how: PrepareOptions = {
    maxLength: Math.min(config.max_seq_length, source.config.maxPos),
    template: config.chat_template === "alpaca" ? "alpaca" : "auto",
    trainOn: config.train_on_inputs ? "all" : config.response_turns === "last" ? "last" : "answers",
    preference: config.preference,
    vocab: source.config.vocab,
    signal,
    onProgress: (done, total) => terminal.status(done < total ? `Tokenising ${done} of ${total}` : ""),
    ...(config.raw_text_file ? { chunks: { size: config.chunk_size, stride: config.stride } } : {}),
  };
  const { rows, counts, notes } = await prepare(dataset, tokenizer, how);
  const file = config.eval_file ??
    (config.dataset === "embedded" && !given.has("eval_split")
      ? await embeddedFile(context.packageUrl, EMBEDDED.heldOut)
      : null);
  const all = [...dataset.notes, ...notes];
  const told = (note: string) => [...all, `Held out: ${note}`];
  if (file !== null) {
    const held = await prepare(await openDataset(file, options), tokenizer, how);
    return { dataset, rows, heldOut: held.rows, counts, notes: told(`${held.counts.rows} rows of ${file}`) };
  }
  const size = config.eval_split;
  if (size === 0) return { dataset, rows, heldOut: null, counts, notes: all };
  if (size >= 1 && !Number.isInteger(size)) {
    throw new ConfigError(`Cannot hold out ${size} rows: --eval_split takes a share under 1 or a whole number`);
  }
  const { train, eval: heldOut } = splitRows(rows, size, config.seed);
  return { dataset, rows: train, heldOut, counts, notes: told(`${heldOut.length} of ${rows.length} rows`) };
}

/** @throws {ConfigError} when there is nothing to choose in the data */
function checkPreference({ preference }: Config, { format, source }: Dataset): void {
  if (preference === "refuse" || format === "preference" || format === "completion") return;
  throw new ConfigError(`Cannot use --preference ${preference}: the records of ${source} have no rejected answers`);
}

/** `instruction=question` pairs: our column, the file's. */
function columnMap(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const [ours, theirs] = pair.split("=");
    if (!ours || !theirs) throw new ConfigError(`Cannot read --columns ${pair}: it looks like instruction=question`);
    return [ours, theirs];
  }));
}
