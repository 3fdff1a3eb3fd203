/**
 * Opens a model's files without reading a weight: which family, which configuration, which tensors lie where. Memory can
 * be planned and refused from this alone.
 * @module
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import type { Gguf } from "../formats/gguf.ts";
import { openGguf } from "../formats/gguf_read.ts";
import { openSafetensorsFolder } from "../formats/safetensors.ts";
import { readFloats, type StoredTensor } from "../formats/stored.ts";
import type { Family, GgufReader, HfConfig, ModelConfig } from "./config.ts";
import { familyOf, familyOfGguf } from "./registry.ts";
import { expandNames, type NamedTensor } from "./names.ts";

/** An opened model. */
export interface ModelSource {
  /** As given: a folder, or a .gguf file. It is also where the tokenizer is read from. */
  readonly path: string;
  readonly kind: "safetensors" | "gguf";
  readonly family: Family;
  /** config.json, or the same from GGUF metadata; eos ids include generation_config's. */
  readonly hf: HfConfig;
  readonly config: ModelConfig;
  /** Each tensor the model needs and where it lies, in the family's order. */
  readonly tensors: readonly SourceTensor[];
  /** The GGUF's own metadata; null for a folder. */
  readonly gguf: Gguf | null;
  close(): void;
}

/** A tensor under its three names, and its bytes. */
export interface SourceTensor extends NamedTensor {
  readonly stored: StoredTensor;
  /**
   * Set where `stored` is rounded to fp8_128: the tensor before. A backend that holds that type rounds this itself, to the
   * same values.
   */
  readonly unrounded?: StoredTensor;
}

/**
 * Opens a Hugging Face folder (config.json with model.safetensors or shards), a .gguf file, or a folder with one .gguf.
 * @throws {ConfigError} when the model is not one of ours
 * @throws {FormatError} when a file is malformed, or tensors are missing, unknown or misshapen (all are listed)
 */
export function openModel(path: string): ModelSource {
  if (!existsSync(path)) throw new ConfigError(`Cannot open the model: '${path}' does not exist`);
  if (!statSync(path).isDirectory()) {
    if (!/\.(safetensors|bin)$/i.test(path)) return openGgufModel(path, path);
    throw new ConfigError(`Cannot open the model '${path}': it is weights alone; name the folder with its config.json`);
  }
  if (existsSync(join(path, "config.json"))) return openFolder(path);
  const files = readdirSync(path).filter((n) => n.endsWith(".gguf"));
  if (files.length === 1) return openGgufModel(path, join(path, files[0]));
  throw new ConfigError(
    `Cannot open the model: '${path}' has no config.json and ` +
      (files.length ? `several .gguf files: ${files.sort().join(", ")}; name one` : "no .gguf file"),
  );
}

function readJson(path: string): Record<string, unknown> {
  try {
    const value = JSON.parse(readFileSync(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch (e) {
    throw new FormatError(`Cannot read '${path}': ${(e as Error).message}`, path, 0);
  }
  throw new FormatError(`Cannot read '${path}': it is no JSON object`, path, 0);
}

/** config.json, its end-of-text ids joined with generation_config.json's. */
function readConfig(dir: string): HfConfig {
  const hf = readJson(join(dir, "config.json")), path = join(dir, "generation_config.json");
  if (!existsSync(path)) return hf;
  const list = (v: unknown) => Array.isArray(v) ? v : v === undefined || v === null ? [] : [v];
  const eos = new Set([...list(hf.eos_token_id), ...list(readJson(path).eos_token_id)]);
  return eos.size ? { ...hf, eos_token_id: [...eos] } : hf;
}

const EMBED = "model.embed_tokens.weight", HEAD = "lm_head.weight";

function openFolder(dir: string): ModelSource {
  const given = readConfig(dir), family = familyOf(given), { tied } = family.config(given);
  const file = openSafetensorsFolder(dir);
  try {
    const [hf, found] = tiedOrNot(given, tied, file.tensors), config = family.config(hf);
    const ignored = (name: string) => name.endsWith("rotary_emb.inv_freq") || (config.tied && name === HEAD);
    const tensors = matchTensors(dir, expandNames(family.tensors, config), "hf", found, ignored);
    return { path: dir, kind: "safetensors", family, hf, config, tensors, gguf: null, close: () => file.close() };
  } catch (e) {
    file.close();
    throw e;
  }
}

/**
 * A config that ties head and embedding, held against the file as transformers does (tie_weights): where the file has both
 * and they differ, they are two tensors; where it has the head alone, that is the embedding too.
 */
function tiedOrNot(
  hf: HfConfig,
  tied: boolean,
  found: ReadonlyMap<string, StoredTensor>,
): [HfConfig, ReadonlyMap<string, StoredTensor>] {
  const embed = found.get(EMBED), head = found.get(HEAD);
  if (!tied || !head) return [hf, found];
  if (!embed) return [hf, new Map([...found, [EMBED, head]])];
  return [sameValues(embed, head) ? hf : { ...hf, tie_word_embeddings: false }, found];
}

/** Values read at once when two tensors are compared. */
const COMPARED = 1 << 20;

function sameValues(a: StoredTensor, b: StoredTensor): boolean {
  if (a.shape.join() !== b.shape.join()) return false;
  const [rows, cols] = a.shape, step = Math.max(1, Math.floor(COMPARED / cols));
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(rows, from + step), x = readFloats(a, from, to), y = readFloats(b, from, to);
    if (x.some((v, i) => v !== y[i])) return false;
  }
  return true;
}

/** What a family may ask of a GGUF. */
function reader(file: Gguf): GgufReader {
  return {
    meta: file.meta,
    has: (name) => file.tensors.has(name),
    shape: (name) => file.tensors.get(name)?.shape ?? null,
    floats: (name) => {
      const t = file.tensors.get(name);
      return t ? readFloats(t) : null;
    },
  };
}

function openGgufModel(path: string, file: string): ModelSource {
  const gguf = openGguf(file);
  try {
    const parts = gguf.meta.get("split.count");
    if (typeof parts === "number" && parts > 1) {
      throw new ConfigError(
        `Cannot use '${file}': it is one of ${parts} parts; join them with llama-gguf-split --merge`,
      );
    }
    const family = familyOfGguf(gguf.meta.get("general.architecture"));
    const hf = family.fromGguf(reader(gguf)), config = family.config(hf);
    const ignored = (name: string) => /^rope_(freqs|factors_long|factors_short)\.weight$/.test(name);
    const tensors = matchTensors(file, expandNames(family.tensors, config), "gguf", gguf.tensors, ignored);
    return { path, kind: "gguf", family, hf, config, tensors, gguf, close: () => gguf.close() };
  } catch (e) {
    gguf.close();
    throw e;
  }
}

/** Holds the family's list against the file's. @throws {FormatError} with everything that does not fit */
function matchTensors(
  path: string,
  wanted: readonly NamedTensor[],
  key: "hf" | "gguf",
  found: ReadonlyMap<string, StoredTensor>,
  ignored: (name: string) => boolean,
): SourceTensor[] {
  const problems: string[] = [], names = new Set(wanted.map((w) => w[key]));
  const out: SourceTensor[] = [];
  for (const w of wanted) {
    const stored = found.get(w[key]);
    if (!stored) problems.push(`'${w[key]}' is missing`);
    else if (stored.shape.join() !== w.shape.join()) {
      problems.push(`'${w[key]}' is [${stored.shape}] and must be [${w.shape}]`);
    } else out.push({ ...w, stored });
  }
  for (const name of found.keys()) if (!names.has(name) && !ignored(name)) problems.push(`'${name}' is not expected`);
  if (problems.length) throw new FormatError(`Cannot use the weights of '${path}': ${problems.join("; ")}`, path);
  return out;
}
