/** Which files of a repository a run needs, and which repositories cannot serve. @module */
import { ConfigError } from "../core/errors.ts";

/** A file of a repository. */
export interface RepoFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Name of its content in the cache. */
  readonly hash: string;
  /** SHA-256 of the content where the Hub tells it (large files). */
  readonly sha256: string | null;
}

const SETTINGS = /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|vocab|added_tokens)\.json$/;
const OTHERS =
  /^(merges\.txt|tokenizer\.model|chat_template\.(jinja|json)|adapter_config\.json|adapter_model\.safetensors)$/;
const WEIGHTS = /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/;
const PICKLED = /\.(bin|pt|pth|ckpt)$/;

/**
 * The files of a model: settings, tokenizer, safetensors; or, when `file` is named, that GGUF alone.
 * @throws {ConfigError} when there is nothing that can be loaded, with the way out
 */
export function modelFiles(repo: string, files: readonly RepoFile[], file: string | null): RepoFile[] {
  const top = files.filter((f) => !f.path.includes("/"));
  if (file !== null) return ggufFile(repo, files, file);
  const weights = top.filter((f) => WEIGHTS.test(f.path));
  const adapter = top.some((f) => f.path === "adapter_model.safetensors");
  if (weights.length > 0 || adapter) {
    return top.filter((f) => WEIGHTS.test(f.path) || SETTINGS.test(f.path) || OTHERS.test(f.path));
  }
  const ggufs = files.filter((f) => f.path.endsWith(".gguf"));
  if (ggufs.length === 1) return ggufs;
  if (ggufs.length > 1) {
    throw new ConfigError(
      `Cannot choose a file of ${repo}: it holds ${ggufs.map((f) => f.path).join(", ")}; name one, as ${repo}/${
        ggufs[0].path
      }`,
    );
  }
  const pickled = files.filter((f) => PICKLED.test(f.path)).map((f) => f.path);
  throw new ConfigError(
    pickled.length > 0
      ? `Cannot load ${repo}: its weights are pickles (${
        pickled.join(", ")
      }), which can run code; ask its author for ` +
        "safetensors, or save it again with transformers' save_pretrained"
      : `Cannot load ${repo}: it holds neither safetensors nor GGUF`,
  );
}

function ggufFile(repo: string, files: readonly RepoFile[], file: string): RepoFile[] {
  const found = files.filter((f) => f.path === file);
  if (found.length === 0) throw new ConfigError(`Cannot load ${repo}: it has no file ${file}`);
  return found;
}

const ROWS = /\.(parquet|jsonl|json|csv)$/;
const NOT_ROWS = /(^|\/)(dataset_infos?|state|dataset_dict|config)\.json$/;

/** A folder that is named after a split and so is no part of its own. */
const SPLIT_FOLDER = /^(train|data)$/i;

/** The part of a dataset a file belongs to: its folder, without those named after splits; "" at the top. */
function partOf({ path }: RepoFile): string {
  return path.split("/").slice(0, -1).filter((name) => !SPLIT_FOLDER.test(name)).join("/");
}

/**
 * The files of a dataset's train split, in one format: parquet before jsonl, json and csv. Of several parts, which folders
 * are, the one named is taken, or the one file at the top: joined they would be another dataset.
 * @param part folder inside the repository, or null
 * @throws {ConfigError} when there are none, or several parts of which none is named
 */
export function datasetFiles(repo: string, all: readonly RepoFile[], part: string | null): RepoFile[] {
  const files = part === null ? all : all.filter((f) => f.path.startsWith(`${part}/`));
  const found = trainFiles(part === null ? repo : `${repo}/${part}`, files);
  const parts = [...new Set(found.map(partOf))].sort();
  if (part !== null || parts.length === 1) return found;
  const top = found.filter((f) => partOf(f) === ""), folders = parts.filter((p) => p !== "");
  if (top.length === 1) return top;
  throw new ConfigError(
    `Cannot choose a part of the dataset ${repo}: it holds ${folders.join(", ")}; name one, as ${repo}/${folders[0]}`,
  );
}

function trainFiles(repo: string, files: readonly RepoFile[]): RepoFile[] {
  const rows = files.filter((f) => ROWS.test(f.path) && !NOT_ROWS.test(f.path));
  const train = rows.filter((f) => /(^|[/_.-])train([/_.-]|$)/.test(f.path));
  // Files named after no split at all are the train split; those of test and validation never are.
  const plain = rows.filter((f) => !/(^|[/_.-])(test|validation|valid|dev|eval)([/_.-]|$)/.test(f.path));
  for (const ending of [".parquet", ".jsonl", ".json", ".csv"]) {
    for (const choice of [train, plain]) {
      const found = choice.filter((f) => f.path.endsWith(ending));
      if (found.length > 0) return found;
    }
  }
  throw new ConfigError(
    `Cannot read the dataset ${repo}: it holds no .parquet, .jsonl, .json or .csv of a train split`,
  );
}
