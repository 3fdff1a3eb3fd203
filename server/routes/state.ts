/** GET /health and /metrics: whether requests are answered, and how many were. @module */
import type { Hono } from "hono";
import type { Context } from "../context.ts";

/** Adds the routes. /health asks for no key, so that a supervisor needs none. */
export function addState(app: Hono, context: Context): void {
  app.get("/health", (c) => {
    const { running, waiting, limit } = context.engine().stats();
    return c.json({ status: "ok", running, waiting, limit });
  });
  app.get("/metrics", (c) =>
    c.text(context.metrics.write(context.engine()), 200, {
      "content-type": "text/plain; version=0.0.4; charset=utf-8",
    }));
}
