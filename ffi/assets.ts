/**
 * A file that ships beside a module, as a path that dlopen takes. A module imported from JSR has an https URL: the file
 * is fetched once, held against its SHA-256, and kept in the user's cache.
 * @module
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Where fetched files are kept: $UNSLOTH_CACHE, else the platform's cache folder, and `unsloth-js` in it. */
export function cacheFolder(): string {
  const { UNSLOTH_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  return UNSLOTH_CACHE || join(XDG_CACHE_HOME || LOCALAPPDATA || join(homedir(), ".cache"), "unsloth-js");
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * A path for `url`. `file:` is where it lies; `http(s):` is fetched once into the cache and checked at every use.
 * @param sha256 hex digest of the file
 * @throws {Error} when it cannot be fetched or is not the file that was meant
 */
export async function assetPath(url: URL, sha256: string): Promise<string> {
  if (url.protocol === "file:") return fileURLToPath(url);
  const folder = join(cacheFolder(), sha256.slice(0, 16)), file = join(folder, basename(url.pathname));
  const kept = await readFile(file).catch((e: NodeJS.ErrnoException) => {
    if (e.code !== "ENOENT") throw e;
    return null;
  });
  if (kept) {
    if (sha256Of(kept) === sha256) return file;
    // Damaged on disk: fetched again below.
    await rm(file);
  }
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`Cannot fetch ${url}: the server answered ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer()), got = sha256Of(bytes);
  if (got !== sha256) throw new Error(`Cannot use ${url}: its SHA-256 is ${got} and must be ${sha256}`);
  await mkdir(folder, { recursive: true });
  // Another process may be doing the same: a name of its own, then a rename, which is atomic.
  const draft = `${file}.${process.pid}.tmp`;
  await writeFile(draft, bytes);
  await rename(draft, file);
  return file;
}
