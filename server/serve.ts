/** Listening: the same app on Deno, Bun and Node, on this machine only unless told otherwise. @module */
import type { Hono } from "hono";

/** A server that listens. */
export interface Serving {
  /** Where it answers, e.g. `http://127.0.0.1:8000`. */
  readonly url: string;
  readonly port: number;
  /** Stops listening and closes what is open. */
  close(): Promise<void>;
}

type Fetch = (request: Request) => Response | Promise<Response>;

/** What is used of the two runtimes' own servers. */
interface Runtimes {
  Deno?: {
    serve(o: { hostname: string; port: number; signal: AbortSignal; onListen(): void }, handler: Fetch): {
      addr: { port: number };
      finished: Promise<void>;
    };
  };
  Bun?: {
    serve(o: { hostname: string; port: number; idleTimeout: number; fetch: Fetch }): {
      port: number;
      stop(closeActive: boolean): Promise<void>;
    };
  };
}

/**
 * Serves `app`.
 * @param options `host` defaults to 127.0.0.1; `port` 0 takes any free one
 * @throws {Error} when the address is taken or not ours
 */
export async function serve(app: Pick<Hono, "fetch">, options: { host?: string; port: number }): Promise<Serving> {
  const { host = "127.0.0.1", port } = options;
  const fetch: Fetch = (request) => app.fetch(request);
  const { Deno, Bun } = globalThis as Runtimes;
  const url = (port: number) => `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
  if (Deno?.serve) {
    const ending = new AbortController();
    const server = Deno.serve({ hostname: host, port, signal: ending.signal, onListen: () => {} }, fetch);
    const close = () => {
      ending.abort();
      return server.finished;
    };
    return { url: url(server.addr.port), port: server.addr.port, close };
  }
  if (Bun) {
    // Bun closes a connection after 10 s without bytes; a long prompt may take longer to read.
    const server = Bun.serve({ hostname: host, port, idleTimeout: 0, fetch });
    return { url: url(server.port), port: server.port, close: () => server.stop(true) };
  }
  return await serveOnNode(fetch, host, port, url);
}

async function serveOnNode(fetch: Fetch, host: string, port: number, url: (port: number) => string): Promise<Serving> {
  const { createAdaptorServer } = await import("@hono/node-server");
  const server = createAdaptorServer({ fetch, overrideGlobalObjects: false });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => resolve());
  });
  const address = server.address() as { port: number };
  return {
    url: url(address.port),
    port: address.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        if ("closeAllConnections" in server) server.closeAllConnections();
      }),
  };
}
