/**
 * The HTTP interface over an engine: OpenAI's endpoints, health, metrics and tokens, as a Hono app that any runtime
 * serves and tests call without a port.
 * @module
 */
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Engine } from "../src/infer/types.ts";
import { type AppOptions, type Context, engineOf } from "./context.ts";
import { ApiError, toApiError } from "./errors.ts";
import { guardKey, guardOrigin } from "./guard.ts";
import { Metrics } from "./metrics.ts";
import { addChat } from "./routes/chat.ts";
import { addCompletions } from "./routes/completions.ts";
import { addModels } from "./routes/models.ts";
import { addResponses } from "./routes/responses.ts";
import { addState } from "./routes/state.ts";
import { addTokens } from "./routes/tokens.ts";

export type { AppOptions } from "./context.ts";
export { serve, type Serving } from "./serve.ts";

const MEBIBYTE = 1048576;

/**
 * An app that answers with `engine`.
 * @param engine while a promise of it is open, requests are answered with 503
 * @returns a Hono app: `app.fetch` for a server, `app.request("/health")` for a test
 * @example
 * ```ts
 * const app = createApp(engine);
 * const answer = await app.request("/v1/chat/completions", {
 *   method: "POST",
 *   body: JSON.stringify({ messages: [{ role: "user", content: "Hello" }] }),
 * });
 * ```
 */
export function createApp(engine: Engine | Promise<Engine>, options: AppOptions = {}): Hono {
  const settings = { apiKeys: [], cors: [], bodyLimit: 16 * MEBIBYTE, pingSeconds: 15, ...options };
  const context: Context = { engine: engineOf(engine), options: settings, metrics: new Metrics() };
  const app = new Hono();
  app.onError((e) => {
    const error = toApiError(e);
    const headers: Record<string, string> = error.status === 503 ? { "retry-after": "1" } : {};
    return Response.json(error.body(), { status: error.status, headers });
  });
  app.notFound((c) => {
    const error = new ApiError(
      "not_found_error",
      `Cannot ${c.req.method} ${c.req.path}: this server has no such endpoint`,
    );
    return Response.json(error.body(), { status: 404 });
  });
  guardOrigin(app, settings.cors);
  app.use(bodyLimit({
    maxSize: settings.bodyLimit,
    onError: () => {
      const message = `Cannot read the request: its body is over ${settings.bodyLimit} bytes`;
      throw new ApiError("invalid_request_error", message, null, {}, 413);
    },
  }));
  for (const path of ["/v1/*", "/metrics", "/tokenize", "/detokenize"]) app.use(path, guardKey(settings.apiKeys));
  addState(app, context);
  addModels(app, context);
  addChat(app, context);
  addCompletions(app, context);
  addResponses(app, context);
  addTokens(app, context);
  return app;
}
