/** A folder to the Hub, as one commit. @module */
import { openAsBlob, readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";
import process from "node:process";
import { ConfigError } from "../core/errors.ts";
import { hubToken } from "./token.ts";

/** How and where to upload. */
export interface UploadOptions {
  /** Default: HF_TOKEN of the environment. */
  token?: string | null;
  /** Address of the Hub. Default: HF_ENDPOINT of the environment, else the library's own. */
  endpoint?: string;
  private?: boolean;
  title?: string;
  signal?: AbortSignal;
  /** Share of one file that is done, 0 to 1. */
  onProgress?: (file: string, share: number) => void;
}

/**
 * Creates the repository `org/name` if need be and commits files of a folder to it.
 * @param takes whether a file is uploaded, by its path from the folder; default: all of them
 * @returns the commit's address
 * @throws {ConfigError} without a token, or when the Hub refuses
 */
export async function uploadFolder(
  repo: string,
  dir: string,
  o: UploadOptions = {},
  takes: (path: string) => boolean = () => true,
): Promise<string> {
  const files = list(dir).filter(takes);
  const token = hubToken(o.token);
  if (!token) throw new ConfigError(`Cannot push to ${repo}: a token is needed (--hub_token or HF_TOKEN)`);
  const endpoint = o.endpoint ?? process.env.HF_ENDPOINT;
  const hub = await import("@huggingface/hub");
  const access = {
    accessToken: token,
    repo: { type: "model" as const, name: repo },
    ...(endpoint ? { hubUrl: endpoint.replace(/\/$/, "") } : {}),
  };
  try {
    if (!await hub.repoExists(access)) await hub.createRepo({ ...access, private: o.private ?? false });
    const steps = hub.uploadFilesWithProgress({
      ...access,
      commitTitle: o.title ?? "Upload model",
      // The runtime's own Blob of a file: the library's subclass of Blob is sent as an empty body by Bun's fetch.
      files: await Promise.all(files.map(async (path) => ({ path, content: await openAsBlob(join(dir, path)) }))),
      ...(o.signal ? { abortSignal: o.signal } : {}),
    });
    while (true) {
      const { done, value } = await steps.next();
      if (done) return value?.commit.url ?? repo;
      if (value.event === "fileProgress" && value.state !== "error") o.onProgress?.(value.path, value.progress);
    }
  } catch (e) {
    if ((e as Error).name === "AbortError") throw e;
    throw new ConfigError(`Cannot push to ${repo}: ${(e as Error).message}`);
  }
}

function list(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
    .map((e) => relative(dir, join(e.parentPath, e.name)).split(sep).join("/")).sort();
}
