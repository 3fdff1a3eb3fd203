/**
 * From a name to a model on disk: the embedded one, a path, an adapter with its base, a Hub id, or what was trained last.
 * @module
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../core/errors.ts";
import { isPeftAdapter, parsePeftConfig, readJsonObject } from "../formats/peft.ts";
import { isDataFile } from "../data/mod.ts";
import { downloadDataset, downloadModel, isDatasetId, isHubId } from "../hub/mod.ts";
import { EMBEDDED, embeddedFile } from "./assets.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { bytesText } from "./terminal.ts";

/** A model on disk. */
export interface FoundModel {
  /** As the user named it. */
  readonly name: string;
  /** A folder or a .gguf file. */
  readonly path: string;
  /** Folder of an adapter to put on it. */
  readonly adapter: string | null;
}

/**
 * Finds the model, downloading it if need be.
 * @throws {ConfigError} when there is none
 */
export async function findModel(config: Config, context: CliContext): Promise<FoundModel> {
  const name = config.model_name ?? lastTrained(config);
  if (config.model_name === null) context.terminal.note(`Model ${name}`);
  if (existsSync(name) && statSync(name).isDirectory() && isPeftAdapter(name)) {
    if (config.adapter !== null) throw new ConfigError(`Cannot use --adapter: ${name} is an adapter itself`);
    return { name, path: await locateBase(name, config, context), adapter: name };
  }
  return { name, path: await locate(name, config, context), adapter: config.adapter };
}

/** The base model an adapter was trained on. */
function locateBase(adapter: string, config: Config, context: CliContext): Promise<string> {
  const path = join(adapter, "adapter_config.json"), { baseModel } = parsePeftConfig(readJsonObject(path), path);
  if (baseModel === null) throw new ConfigError(`Cannot load the adapter ${adapter}: it does not name its base model`);
  return locate(baseModel, config, context);
}

async function locate(name: string, config: Config, context: CliContext): Promise<string> {
  const here = existsSync(name) || name === "embedded";
  if (here && config.revision !== "main") {
    throw new ConfigError(
      `Cannot use --revision ${config.revision}: ${name} is a model on this machine, without versions`,
    );
  }
  if (existsSync(name)) return name;
  if (here) return await embeddedFile(context.packageUrl, EMBEDDED.model);
  if (!isHubId(name) || /\.(safetensors|bin|json)$/i.test(name) || isLocalGguf(name)) {
    throw new ConfigError(`Cannot find the model ${name}: there is no such path, and it is no Hub id`);
  }
  return await downloadModel(name, hubOptions(config, context));
}

/** A .gguf file's path; on the Hub one lies in a repository: `org/name/file.gguf`. */
function isLocalGguf(name: string): boolean {
  return /\.gguf$/i.test(name) && name.split("/").length < 3;
}

/** A dataset's file or folder. */
export async function findDataset(name: string, config: Config, context: CliContext): Promise<string> {
  if (existsSync(name)) return name;
  if (name === "embedded") return await embeddedFile(context.packageUrl, EMBEDDED.data);
  // A Hub id that ends as a file does is a file whose path is wrong.
  if (!isDatasetId(name) || isDataFile(name)) {
    throw new ConfigError(
      `Cannot find the dataset ${JSON.stringify(name)}: there is no such path, and it is no Hub id`,
    );
  }
  return await downloadDataset(name, { ...hubOptions(config, context), revision: "main" });
}

function hubOptions(config: Config, { terminal, signal }: CliContext) {
  return {
    revision: config.revision,
    token: config.hub_token,
    ...(config.offline ? { offline: true } : {}),
    signal,
    onProgress: (file: string, done: number, total: number) => {
      terminal.status(`${file}  ${bytesText(done)} of ${bytesText(total)}`);
      if (done === total) {
        terminal.status("");
        terminal.note(`Downloaded ${file} (${bytesText(total)})`);
      }
    },
  };
}

/**
 * The newest of the GGUF files in save_path and the adapter in output_dir.
 * @throws {ConfigError} when nothing was trained here
 */
export function lastTrained(config: Config): string {
  const { save_path, output_dir } = config;
  const ggufs = existsSync(save_path) && statSync(save_path).isDirectory()
    ? readdirSync(save_path).filter((f) => f.endsWith(".gguf")).map((f) => join(save_path, f))
    : [];
  const weights = join(output_dir, "adapter_model.safetensors");
  const found = [...ggufs, ...(existsSync(weights) ? [weights] : [])]
    .map((path) => ({ path, time: statSync(path).mtimeMs })).sort((a, b) => b.time - a.time)[0];
  if (!found) {
    throw new ConfigError(
      `Cannot choose a model: there is nothing in ${save_path} or ${output_dir}; name one, or train first`,
    );
  }
  return found.path === weights ? output_dir : found.path;
}
