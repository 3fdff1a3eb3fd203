/**
 * A small server that speaks the Hub's protocol as far as downloads and uploads need it: revision, tree, resolve with
 * ranges, preupload, LFS batch, commit. It can cut a download short, to try resuming.
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

/** A repository's content. */
export type Files = Record<string, Uint8Array>;

/** What is served, and what was asked. */
export class HubServer {
  readonly requests: { method: string; path: string; range: string | null; token: string | null }[] = [];
  readonly commits: { repo: string; files: Files }[] = [];
  readonly created: string[] = [];
  /** Bytes after which a download of this path is cut, once. */
  cut: { path: string; after: number } | null = null;
  /** Repositories that need this token. */
  token: string | null = null;
  readonly commit = "c".repeat(40);
  #server: Server;
  #uploads = new Map<string, Uint8Array>();
  url = "";

  private readonly repos: Record<string, Files>;

  /** @param repos by `models/org/name` or `datasets/org/name` */
  constructor(repos: Record<string, Files>) {
    this.repos = repos;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((e) => response.destroy(e));
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((done) => this.#server.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((done) => this.#server.close(() => done()));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname: path } = new URL(request.url!, this.url), method = request.method!;
    const token = request.headers.authorization?.replace("Bearer ", "") ?? null;
    this.requests.push({ method, path, range: request.headers.range ?? null, token });
    const json = (value: unknown, status = 200) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    };
    if (this.token && token !== this.token) return json({ error: "Unauthorized" }, 401);
    if (method !== "GET") return this.#write(path, await body(request), json);
    const info = /^\/api\/((?:models|datasets)\/[^/]+\/[^/]+)(?:\/(revision|tree)\/([^/]+))?$/.exec(path);
    if (info) {
      const files = this.repos[info[1]];
      if (!files) return json({ error: "Repository not found" }, 404);
      if (info[2] !== "tree") return json({ id: info[1], _id: "1", sha: this.commit, lastModified: "2026-01-01" });
      return json(Object.entries(files).map(([p, bytes]) => entry(p, bytes)));
    }
    const file = /^\/(?:(datasets)\/)?([^/]+\/[^/]+)\/resolve\/[^/]+\/(.+)$/.exec(path);
    const bytes = file && this.repos[`${file[1] ?? "models"}/${file[2]}`]?.[decodeURIComponent(file[3])];
    if (!bytes) return json({ error: "Entry not found" }, 404);
    this.#send(file[3], bytes, request.headers.range, response);
  }

  #send(path: string, bytes: Uint8Array, range: string | undefined, response: ServerResponse): void {
    const [, from, to] = /bytes=(\d+)-(\d+)/.exec(range ?? "") ?? [null, "0", String(bytes.length - 1)];
    const part = bytes.subarray(Number(from), Number(to) + 1);
    response.writeHead(range ? 206 : 200, {
      etag: `"${sha256(bytes)}"`,
      "content-length": String(part.length),
      ...(range ? { "content-range": `bytes ${from}-${to}/${bytes.length}` } : {}),
    });
    if (this.cut?.path === path && part.length > this.cut.after) {
      response.write(part.subarray(0, this.cut.after), () => setTimeout(() => response.destroy(), 20));
      this.cut = null;
      return;
    }
    response.end(part);
  }

  #write(path: string, data: Uint8Array, json: (value: unknown, status?: number) => void): void {
    const text = new TextDecoder().decode(data);
    if (path === "/api/repos/create") {
      const { organization, name } = JSON.parse(text);
      this.repos[`models/${organization}/${name}`] = {};
      this.created.push(`${organization}/${name}`);
      return json({ url: `${this.url}/${organization}/${name}`, id: "1" });
    }
    if (path.includes("/preupload/")) {
      const files = JSON.parse(text).files as { path: string; size: number }[];
      return json({ files: files.map((f) => ({ ...f, uploadMode: f.size > 100 ? "lfs" : "regular" })) });
    }
    if (path.endsWith("/info/lfs/objects/batch")) {
      const objects = JSON.parse(text).objects as { oid: string; size: number }[];
      const href = (oid: string) => `${this.url}/upload/${oid}`;
      return json({
        transfer: "basic",
        objects: objects.map((o) => ({ ...o, actions: { upload: { href: href(o.oid) } } })),
      });
    }
    if (path.startsWith("/upload/")) {
      this.#uploads.set(path.slice("/upload/".length), data);
      return json({});
    }
    const repo = /^\/api\/models\/([^/]+\/[^/]+)\/commit\/main$/.exec(path)?.[1];
    if (!repo) return json({ error: `Nothing at ${path}` }, 404);
    const lines = text.trim().split("\n").map((l) => JSON.parse(l)), files: Files = {};
    for (const { key, value } of lines) {
      if (key === "file") files[value.path] = Uint8Array.from(atob(value.content), (c) => c.charCodeAt(0));
      if (key === "lfsFile") files[value.path] = this.#uploads.get(value.oid)!;
    }
    this.commits.push({ repo, files });
    return json({ commitOid: "d".repeat(40), commitUrl: `${this.url}/${repo}/commit/d`, hookOutput: "" });
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function entry(path: string, bytes: Uint8Array): unknown {
  const oid = createHash("sha1").update(bytes).digest("hex");
  const large = bytes.length > 100 ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 120 } } : {};
  return { type: "file", path, size: bytes.length, oid, ...large };
}

async function body(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}
