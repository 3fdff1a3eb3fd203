/** Files of this package: read where they lie, or fetched once into the user's cache when the package is on the web. @module */
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { ConfigError } from "../core/errors.ts";

/** Names of the files in models/embedded; exports of the model take their name from it. */
export const EMBEDDED = {
  model: "unsloth-tiny.Q8_0.gguf",
  data: "instructions.jsonl",
  heldOut: "held_out.jsonl",
} as const;

/**
 * Path of a file of models/embedded.
 * @param packageUrl where mod.ts lies; https when imported from JSR
 * @throws {ConfigError} when it cannot be read or fetched
 */
export async function embeddedFile(packageUrl: URL, name: string): Promise<string> {
  const url = new URL(`models/embedded/${name}`, packageUrl);
  if (url.protocol === "file:") {
    const path = fileURLToPath(url);
    if (existsSync(path)) return path;
    throw new ConfigError(`Cannot open the embedded model: ${path} is missing from this package`);
  }
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  const path = join(cache, "unsloth", url.host, ...url.pathname.split("/").filter((p) => p !== ""));
  if (existsSync(path)) return path;
  const answer = await fetch(url);
  if (!answer.ok) throw new ConfigError(`Cannot fetch ${url}: HTTP status ${answer.status}`);
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, new Uint8Array(await answer.arrayBuffer()));
  renameSync(temporary, path);
  return path;
}
