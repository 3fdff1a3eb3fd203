/** GET /v1/models and /v1/models/{id}: the one model that is served. @module */
import type { Hono } from "hono";
import type { Engine } from "../../src/infer/types.ts";
import type { Context } from "../context.ts";
import { checkModel } from "../sampling.ts";

/** Adds the routes. An id may hold slashes, as Hub ids do. */
export function addModels(app: Hono, context: Context): void {
  app.get("/v1/models", (c) => c.json({ object: "list", data: [describe(context.engine())] }));
  app.get("/v1/models/:id{.+}", (c) => {
    const engine = context.engine();
    checkModel(c.req.param("id"), engine);
    return c.json(describe(engine));
  });
}

function describe(engine: Engine): Record<string, unknown> {
  const { model, created, contextLength, tokenizer } = engine;
  const meta = { n_vocab: tokenizer.size, n_ctx: contextLength };
  return { id: model, object: "model", created, owned_by: "unsloth", max_model_len: contextLength, meta };
}
