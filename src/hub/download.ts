/**
 * Models and datasets from the Hub into the cache: only what is needed, resumed where it was cut off, checked against
 * the Hub's SHA-256. @huggingface/hub speaks the protocol; it is imported when first needed, never at start.
 * @module
 */
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import process from "node:process";
import { ConfigError, FormatError } from "../core/errors.ts";
import { defaultCache, RepoCache, type RepoKind, safePath } from "./cache.ts";
import { datasetFiles, modelFiles, type RepoFile } from "./choose_files.ts";
import { hubToken } from "./token.ts";

/** How the Hub is reached. */
export interface HubOptions {
  /** Default "main". */
  revision?: string;
  /** Default: HF_TOKEN of the environment. */
  token?: string | null;
  /** Use the cache only. Default: HF_HUB_OFFLINE of the environment. */
  offline?: boolean;
  /** Default: HF_HUB_CACHE and the other names huggingface_hub knows. */
  cacheDir?: string;
  /** Address of the Hub. Default: HF_ENDPOINT of the environment, else the library's own. */
  endpoint?: string;
  signal?: AbortSignal;
  /** Bytes of one file so far and in all. */
  onProgress?: (file: string, done: number, total: number) => void;
}

/** A name of the form org/name, or org/name/file.gguf. */
const REPO = /^([\w.-]+\/[\w.-]+)(?:\/(.+\.gguf))?$/;

/** The same of a dataset: org/name, or org/name/folder for a part of it. */
const DATASET = /^([\w.-]+\/[\w.-]+)(?:\/([\w./ -]+?))?\/?$/;

/** Whether a name can be that of a dataset on the Hub, or of a part of one. */
export function isDatasetId(name: string): boolean {
  return DATASET.test(name) && !name.startsWith(".");
}

/** Whether a name can be a Hub id; whether a file or folder of that name exists is for the caller to look at first. */
export function isHubId(name: string): boolean {
  return REPO.test(name) && !name.startsWith(".");
}

/**
 * A model's files; `name` is `org/name`, or `org/name/file.gguf`.
 * @returns the snapshot's folder, or the GGUF file
 * @throws {ConfigError} when it is not in the cache and `offline`, or holds only pickles, or the Hub refuses
 */
export async function downloadModel(name: string, o: HubOptions = {}): Promise<string> {
  const [, repo, file] = REPO.exec(name) ?? [];
  if (!repo) throw new ConfigError(`Cannot download ${JSON.stringify(name)}: a Hub id looks like org/name`);
  const folder = await fetchSnapshot("model", repo, o, (files) => modelFiles(repo, files, file ?? null));
  if (file) return join(folder.dir, file);
  return folder.files.length === 1 && folder.files[0].endsWith(".gguf")
    ? join(folder.dir, folder.files[0])
    : folder.dir;
}

/**
 * A dataset's train split; `name` is `org/name`, or `org/name/folder` where the repository holds several parts.
 * @returns the one file, or the folder when there are several
 * @throws {ConfigError} when there is none, or several parts of which none is named
 */
export async function downloadDataset(name: string, o: HubOptions = {}): Promise<string> {
  const [, repo, part = null] = DATASET.exec(name) ?? [];
  if (!repo) throw new ConfigError(`Cannot download ${JSON.stringify(name)}: a dataset's id looks like org/name`);
  const { dir, files } = await fetchSnapshot("dataset", repo, o, (all) => datasetFiles(repo, all, part));
  return files.length === 1 ? join(dir, files[0]) : join(dir, part ?? commonFolder(files));
}

/** The folder all files lie in; "" for the top. What else lies beside it may be of another part. */
function commonFolder(files: readonly string[]): string {
  const folders = files.map((path) => path.split("/").slice(0, -1));
  const shared = folders[0].findIndex((name, i) => folders.some((f) => f[i] !== name));
  return folders[0].slice(0, shared < 0 ? undefined : shared).join("/");
}

interface Snapshot {
  readonly dir: string;
  readonly files: readonly string[];
}

async function fetchSnapshot(
  kind: RepoKind,
  repo: string,
  o: HubOptions,
  choose: (files: readonly RepoFile[]) => RepoFile[],
): Promise<Snapshot> {
  const cache = new RepoCache(o.cacheDir ?? defaultCache(), kind, repo), revision = o.revision ?? "main";
  if (o.offline ?? isOffline()) return fromCache(cache, revision, choose);
  const access = await connect(kind, repo, o);
  const commit = await access.commit(revision);
  cache.setRef(revision, commit);
  const files = choose(await access.list(commit));
  for (const file of files) {
    await fetchFile(access, cache, commit, file, o);
    cache.link(file.hash, commit, file.path);
  }
  return { dir: cache.snapshot(commit), files: files.map((f) => f.path) };
}

function isOffline(): boolean {
  return /^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? "");
}

function fromCache(cache: RepoCache, revision: string, choose: (files: readonly RepoFile[]) => RepoFile[]): Snapshot {
  const commit = cache.commitOf(revision), present = commit ? cache.files(commit) : [];
  if (!commit || present.length === 0) {
    throw new ConfigError(`Cannot use ${cache.repo} offline: ${cache.dir} does not hold its revision ${revision}`);
  }
  const files = choose(present.map((path) => ({ path, size: 0, hash: "", sha256: null })));
  return { dir: cache.snapshot(commit), files: files.map((f) => f.path) };
}

/** What is asked of the Hub about one repository. */
interface Access {
  commit(revision: string): Promise<string>;
  list(commit: string): Promise<RepoFile[]>;
  open(commit: string, file: string): Promise<Blob>;
}

/** fetch that the caller's signal ends. The cast: Bun's types want a `preconnect` on it that nothing here calls. */
function abortable(signal: AbortSignal): typeof fetch {
  return ((input: RequestInfo | URL, init?: RequestInit) => fetch(input, { ...init, signal })) as typeof fetch;
}

async function connect(kind: RepoKind, name: string, o: HubOptions): Promise<Access> {
  const hub = await import("@huggingface/hub");
  const token = hubToken(o.token);
  const endpoint = o.endpoint ?? process.env.HF_ENDPOINT;
  const signal = o.signal;
  const access = {
    ...(token ? { accessToken: token } : {}),
    ...(endpoint ? { hubUrl: endpoint.replace(/\/$/, "") } : {}),
    ...(signal ? { fetch: abortable(signal) } : {}),
  };
  const repo = { type: kind, name };
  const asked = <T>(what: () => Promise<T>) => explained(kind, name, token !== undefined, what);
  return {
    commit: (revision) =>
      asked(async () => {
        const question = { ...access, name, revision, additionalFields: ["sha" as const] };
        return (kind === "model" ? await hub.modelInfo(question) : await hub.datasetInfo(question)).sha;
      }),
    list: (commit) =>
      asked(async () => {
        const files: RepoFile[] = [];
        for await (const e of hub.listFiles({ ...access, repo, revision: commit, recursive: true })) {
          if (e.type !== "file") continue;
          const hash = e.lfs?.oid ?? e.xetHash ?? e.oid ?? "";
          files.push({ path: safePath(e.path), size: e.size, hash, sha256: e.lfs?.oid ?? null });
        }
        return files;
      }),
    open: (commit, path) =>
      asked(async () => {
        const blob = await hub.downloadFile({ ...access, repo, path, revision: commit });
        if (!blob) throw new ConfigError(`Cannot download ${path} of ${name}: the Hub has no such file`);
        return blob;
      }),
  };
}

/** Turns what the Hub or the network said into a sentence with a way out. */
async function explained<T>(kind: RepoKind, name: string, token: boolean, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (e) {
    if (e instanceof ConfigError || e instanceof FormatError || (e as Error).name === "AbortError") throw e;
    const status = (e as { statusCode?: number }).statusCode;
    const way = status === 401 || status === 403
      ? token ? "the token may not read it" : "it needs a token (--hub_token or HF_TOKEN), or the name is wrong"
      : status === 404
      ? "there is none of that name or revision"
      : `${(e as Error).message}; --offline uses what is in the cache`;
    throw new ConfigError(`Cannot fetch the ${kind} ${name}: ${way}`);
  }
}

/** Brings one file's content into the cache, going on where an earlier try stopped. */
async function fetchFile(
  access: Access,
  cache: RepoCache,
  commit: string,
  file: RepoFile,
  o: HubOptions,
): Promise<void> {
  const place = cache.blob(file.hash), part = `${place}.incomplete`;
  if (existsSync(place)) return;
  mkdirSync(dirname(place), { recursive: true });
  let done = existsSync(part) ? statSync(part).size : 0;
  if (done > file.size) {
    rmSync(part);
    done = 0;
  }
  const fd = openSync(part, "a");
  try {
    o.onProgress?.(file.path, done, file.size);
    if (done < file.size) {
      const blob = await access.open(commit, file.path);
      for await (const chunk of read(done > 0 ? blob.slice(done) : blob)) {
        for (let at = 0; at < chunk.length;) at += writeSync(fd, chunk, at);
        o.onProgress?.(file.path, done += chunk.length, file.size);
      }
    }
  } finally {
    closeSync(fd);
  }
  await checkContent(part, file);
  renameSync(part, place);
}

async function* read(blob: Blob): AsyncGenerator<Uint8Array> {
  const reader = blob.stream().getReader();
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function checkContent(part: string, file: RepoFile): Promise<void> {
  const { size } = statSync(part);
  if (size !== file.size) {
    const more = size < file.size ? "; run again to go on from there" : "";
    if (size > file.size) rmSync(part);
    throw new FormatError(`Cannot use ${file.path}: ${size} of ${file.size} bytes came${more}`, file.path, size);
  }
  if (!file.sha256) return;
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(part)) hash.update(chunk as Uint8Array);
  const found = hash.digest("hex");
  if (found === file.sha256) return;
  rmSync(part);
  throw new FormatError(`Cannot use ${file.path}: its SHA-256 is ${found} and must be ${file.sha256}`, file.path);
}
