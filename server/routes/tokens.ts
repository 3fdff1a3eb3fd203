/** POST /tokenize and /detokenize, in llama-server's shape. @module */
import type { Hono } from "hono";
import type { Message } from "../../src/tokenizer/types.ts";
import { encodeRendered } from "../../src/tokenizer/mod.ts";
import { readJson } from "../body.ts";
import type { Context } from "../context.ts";
import { invalid } from "../errors.ts";
import { flag, list, number, optional, type Others, readFields, text } from "../fields.ts";
import { message } from "../messages.ts";

const NOTHING_ELSE: Others = { ignored: new Set(["model"]), usual: {} };
const TOKENIZE = {
  content: optional<string | null>(text, null),
  /** A chat instead of a text: the ids a chat request would be answered from. */
  messages: optional<Message[] | null>(list(message, { min: 1 }), null),
  add_special: optional(flag, false),
  with_pieces: optional(flag, false),
};
const DETOKENIZE = { tokens: optional<number[] | null>(list(number({ min: 0, integer: true })), null) };

/** Adds the routes. */
export function addTokens(app: Hono, context: Context): void {
  app.post("/tokenize", async (c) => {
    const engine = context.engine(), { tokenizer } = engine;
    const body = readFields(await readJson(c.req.raw), TOKENIZE, NOTHING_ELSE);
    if ((body.content === null) === (body.messages === null)) {
      throw invalid("content", "Cannot tokenize: give one of 'content' and 'messages'");
    }
    const ids = body.messages
      ? engine.prompt(body.messages)
      : body.add_special
      ? encodeRendered(tokenizer, body.content!)
      : tokenizer.encode(body.content!);
    const tokens = body.with_pieces ? Array.from(ids, (id) => ({ id, piece: tokenizer.piece(id) })) : Array.from(ids);
    return c.json({ tokens, count: ids.length });
  });
  app.post("/detokenize", async (c) => {
    const { tokenizer } = context.engine();
    const { tokens } = readFields(await readJson(c.req.raw), DETOKENIZE, NOTHING_ELSE);
    if (tokens === null) throw invalid("tokens", "Cannot detokenize: 'tokens' is missing");
    const unknown = tokens.find((id) => id >= tokenizer.size);
    if (unknown !== undefined) throw invalid("tokens", `Cannot read token ${unknown}: the model has ${tokenizer.size}`);
    return c.json({ content: tokenizer.decode(tokens) });
  });
}
