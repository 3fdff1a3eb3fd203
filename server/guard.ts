/** Who may ask: web pages by their origin, anyone by a key. @module */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Hono, MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { ApiError } from "./errors.ts";

/** Pages that a server on this machine trusts unless told otherwise. */
const LOCAL = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/**
 * Answers preflights and marks answers for allowed origins; refuses the others, because a page anywhere on the web could
 * otherwise put this machine to work although it may not read the answers.
 */
export function guardOrigin(app: Hono, allowed: "*" | readonly string[]): void {
  const trusts = (origin: string) =>
    allowed === "*" || (allowed.length === 0 ? LOCAL.test(origin) : allowed.includes(origin));
  app.use(async (c, next) => {
    const origin = c.req.header("origin");
    if (origin !== undefined && !trusts(origin)) {
      throw new ApiError("permission_error", `Cannot answer pages of '${origin}': this server does not trust them`);
    }
    await next();
  });
  app.use(cors({ origin: (origin) => trusts(origin) ? origin : null, allowHeaders: [], maxAge: 600 }));
}

/** Asks for one of `keys`, in `Authorization: Bearer …` or `X-Api-Key`; without keys lets all through. */
export function guardKey(keys: readonly string[]): MiddlewareHandler {
  // Digests have one length, which timingSafeEqual needs and which tells nothing of the keys'.
  const digest = (key: string) => createHash("sha256").update(key).digest();
  const known = keys.map(digest);
  return async (c, next) => {
    if (known.length > 0) {
      const bearer = /^Bearer\s+(\S+)\s*$/i.exec(c.req.header("authorization") ?? "")?.[1];
      const given = digest(bearer ?? c.req.header("x-api-key") ?? "");
      if (!known.some((k) => timingSafeEqual(k, given))) {
        throw new ApiError("authentication_error", "Cannot answer: the request carries no valid API key");
      }
    }
    await next();
  };
}
