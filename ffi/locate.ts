/**
 * Finds a backend's library: an explicit path, the file beside its module, the npm platform package, the user's cache.
 * @module
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { BackendError } from "../src/core/errors.ts";
import { assetPath } from "./assets.ts";

/** Where a library may be. */
export interface Place {
  /** The backend's name, "cuda": UNSLOTH_LIB_CUDA may hold a path. */
  readonly name: string;
  /** `new URL("./prebuilt/…", import.meta.url)`: a file in a checkout or package, https when imported from JSR. */
  readonly prebuilt: URL;
  /** Hex SHA-256 of the prebuilt file; needed where it is fetched. */
  readonly sha256: string;
  /** Path inside an npm package, "@scope/package/file.so". */
  readonly npm?: string;
  /** A path the user gave. */
  readonly explicit?: string;
}

/** Path of the file in an installed npm package; null when it is not installed. */
function fromNpm(file: string): string | null {
  if (!import.meta.url.startsWith("file:")) return null;
  try {
    return createRequire(import.meta.url).resolve(file);
  } catch (e) {
    const { code } = e as { code?: string };
    if (code === "MODULE_NOT_FOUND" || code === "ERR_MODULE_NOT_FOUND") return null;
    throw e;
  }
}

/**
 * Path of the library. A path the user gave is used or refused; nothing else is tried in its place.
 * @throws {BackendError} naming every place that was tried
 */
export async function locate(p: Place): Promise<string> {
  const variable = `UNSLOTH_LIB_${p.name.toUpperCase()}`;
  const explicit = p.explicit ?? process.env[variable];
  if (explicit) {
    if (existsSync(explicit)) return explicit;
    const source = p.explicit ? "the path given" : variable;
    throw new BackendError(
      `Cannot open the ${p.name} library: ${source} is ${explicit}, where there is no file`,
      "locate",
    );
  }
  const tried: string[] = [];
  if (p.prebuilt.protocol === "file:") {
    const path = fileURLToPath(p.prebuilt);
    if (existsSync(path)) return path;
    tried.push(`no file ${path}`);
  }
  if (p.npm) {
    const path = fromNpm(p.npm);
    if (path) return path;
    tried.push(`npm package ${p.npm} is not installed`);
  }
  if (p.prebuilt.protocol !== "file:") {
    try {
      return await assetPath(p.prebuilt, p.sha256);
    } catch (e) {
      tried.push((e as Error).message);
    }
  }
  throw new BackendError(`Cannot find the ${p.name} library: ${tried.join("; ")}; ${variable} may name one`, "locate");
}
