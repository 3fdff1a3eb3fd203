/** Opens the tokenizer of a model on disk. @module */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import { openGguf } from "../formats/gguf_read.ts";
import { tokenizerFromGguf } from "./gguf.ts";
import { tokenizerFromJson } from "./json.ts";
import type { Tokenizer } from "./types.ts";

/**
 * Loads the tokenizer of a Hugging Face folder (tokenizer.json, tokenizer_config.json, chat_template.jinja,
 * generation_config.json), of a .gguf file, or of a folder that holds one .gguf file.
 * @throws {ConfigError} when there is no tokenizer that this build can use, with the way out
 * @throws {FormatError} when a file is broken
 * @example
 * ```ts
 * const tokenizer = loadTokenizer("SmolLM2-135M-Instruct.Q4_1.gguf");
 * tokenizer.decode(tokenizer.encode("Hello world")); // "Hello world"
 * ```
 */
export function loadTokenizer(path: string): Tokenizer {
  if (!existsSync(path)) throw new ConfigError(`Cannot load a tokenizer: '${path}' does not exist`);
  if (!statSync(path).isDirectory()) {
    if (!/\.(safetensors|bin)$/i.test(path)) return loadGguf(path);
    throw new ConfigError(
      `Cannot load a tokenizer: '${path}' is weights alone; name the folder with its tokenizer.json`,
    );
  }
  if (existsSync(join(path, "tokenizer.json"))) return loadFolder(path);
  const names = readdirSync(path);
  const files = names.filter((n) => n.endsWith(".gguf"));
  if (files.length === 1) return loadGguf(join(path, files[0]!));
  if (files.length > 1) {
    throw new ConfigError(`Cannot load a tokenizer: '${path}' has ${files.sort().join(", ")}; name one of them`);
  }
  const model = names.find((n) => /^(tokenizer\.model|spiece\.model|tekken\.json|vocab\.json)$/.test(n));
  throw new ConfigError(
    `Cannot load a tokenizer: '${path}' has no tokenizer.json` +
      (model ? `; it has ${model}, which transformers' AutoTokenizer can save as tokenizer.json` : ""),
  );
}

function loadGguf(path: string): Tokenizer {
  const file = openGguf(path);
  try {
    return tokenizerFromGguf(file.meta, path);
  } finally {
    file.close();
  }
}

function loadFolder(path: string): Tokenizer {
  const generation = readJson(path, "generation_config.json"), config = readJson(path, "config.json");
  const jinja = join(path, "chat_template.jinja");
  const older = readJson(path, "chat_template.json")?.chat_template;
  return tokenizerFromJson({
    tokenizer: readJson(path, "tokenizer.json")!,
    config: { ...readJson(path, "special_tokens_map.json"), ...readJson(path, "tokenizer_config.json") },
    generation: { ...config, ...generation },
    template: existsSync(jinja) ? readFileSync(jinja, "utf8") : typeof older === "string" ? older : undefined,
  }, path);
}

function readJson(folder: string, name: string): Record<string, unknown> | undefined {
  const path = join(folder, name);
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (e) {
    throw new FormatError(`Cannot read '${path}': ${(e as Error).message}`, path);
  }
}
