/**
 * The cache on disk, in the layout huggingface_hub uses, so that both share what either has fetched:
 * `<cache>/models--org--name/{refs/<revision>, blobs/<hash>, snapshots/<commit>/<file>}`.
 * @module
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, normalize, relative, sep } from "node:path";
import process from "node:process";
import { FormatError } from "../core/errors.ts";

/** A repository's kind; its name is `org/name`. */
export type RepoKind = "model" | "dataset";

/** Where the cache is unless told otherwise: HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/…. */
export function defaultCache(): string {
  const env = process.env;
  if (env.HF_HUB_CACHE) return env.HF_HUB_CACHE;
  const home = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
  return join(home, "hub");
}

/** One repository's part of the cache. */
export class RepoCache {
  readonly repo: string;
  readonly dir: string;

  constructor(cache: string, kind: RepoKind, repo: string) {
    this.repo = repo;
    this.dir = join(cache, [`${kind}s`, ...repo.split("/")].join("--"));
  }

  /** The commit a branch or tag pointed to when last asked; a full commit is itself. */
  commitOf(revision: string): string | null {
    if (/^[0-9a-f]{40}$/.test(revision)) return revision;
    const path = join(this.dir, "refs", revision);
    return existsSync(path) ? readFileSync(path, "utf8").trim() : null;
  }

  /** Remembers what a branch or tag points to. */
  setRef(revision: string, commit: string): void {
    if (revision === commit) return;
    const path = join(this.dir, "refs", safePath(revision));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, commit);
  }

  /** Folder of one commit's files. */
  snapshot(commit: string): string {
    return join(this.dir, "snapshots", commit);
  }

  /** Place of a file's content. */
  blob(hash: string): string {
    return join(this.dir, "blobs", safePath(hash));
  }

  /** Shows a blob as a file of the snapshot, by a relative link, by a copy where links are not allowed. */
  link(hash: string, commit: string, file: string): void {
    const place = join(this.snapshot(commit), safePath(file)), blob = this.blob(hash);
    if (existsSync(place)) return;
    mkdirSync(dirname(place), { recursive: true });
    rmSync(place, { force: true }); // a link whose blob was removed
    try {
      symlinkSync(relative(dirname(place), blob), place);
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "EPERM") throw e; // Windows without developer mode
      copyFileSync(blob, place);
    }
  }

  /** Files of a snapshot, as paths from its folder. */
  files(commit: string): string[] {
    const root = this.snapshot(commit);
    const walk = (dir: string): string[] =>
      readdirSync(dir, { withFileTypes: true }).flatMap((e) =>
        e.isDirectory() ? walk(join(dir, e.name)) : [relative(root, join(dir, e.name)).split(sep).join("/")]
      );
    return existsSync(root) ? walk(root) : [];
  }
}

/** The name itself. @throws {FormatError} for a name from the network that would leave the folder it is joined to */
export function safePath(name: string): string {
  const path = normalize(name);
  if (isAbsolute(path) || path.split(sep).includes("..") || /^[a-z]:/i.test(path)) {
    throw new FormatError(`Cannot store ${JSON.stringify(name)}: it would leave the cache folder`);
  }
  return path;
}
