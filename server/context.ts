/** What every route is given. @module */
import type { Engine } from "../src/infer/types.ts";
import { ApiError } from "./errors.ts";
import type { Metrics } from "./metrics.ts";

/** Settings of the app. */
export interface AppOptions {
  /** Keys of which a request must carry one, as `Authorization: Bearer …` or `X-Api-Key`; none: no key is asked for. */
  apiKeys?: readonly string[];
  /**
   * Web pages that may call: their origins, or "*" for all. Default: pages of this machine (localhost, 127.0.0.1, [::1]).
   * Requests without an Origin header, which is all that do not come from a page, are always taken.
   */
  cors?: "*" | readonly string[];
  /** Largest body of a request in bytes. Default 16 MiB. */
  bodyLimit?: number;
  /** Seconds of silence after which a stream says so with a comment, so that nothing between closes it. Default 15. */
  pingSeconds?: number;
}

/** Shared by the routes of one app. */
export interface Context {
  /** @throws {ApiError} 503 while the model is loading, 500 when that failed */
  engine(): Engine;
  readonly options: Required<AppOptions>;
  readonly metrics: Metrics;
}

/** The engine once it is there. */
export function engineOf(source: Engine | Promise<Engine>): () => Engine {
  if (!(source instanceof Promise)) return () => source;
  let engine: Engine | null = null, failure: unknown = null;
  source.then((e) => engine = e, (e) => failure = e);
  return () => {
    if (engine) return engine;
    if (failure) throw new ApiError("server_error", failure instanceof Error ? failure.message : String(failure));
    throw new ApiError("unavailable_error", "Cannot answer yet: the model is loading");
  };
}
