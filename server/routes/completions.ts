/** POST /v1/completions: a text or its tokens in, the continuation out. @module */
import type { Hono } from "hono";
import type { Engine } from "../../src/infer/types.ts";
import { encodeRendered } from "../../src/tokenizer/mod.ts";
import { Answers, type ChoicePiece, freshId } from "../answers.ts";
import { readJson } from "../body.ts";
import type { Context } from "../context.ts";
import { invalid } from "../errors.ts";
import { flag, list, number, optional, type Reader, readFields, text, type Values, wrong } from "../fields.ts";
import { type TextLogprobs, textLogprobs } from "../logprobs.ts";
import { checkModel, OTHERS, SAMPLING, toRequest } from "../sampling.ts";
import { eventStream } from "../sse.ts";

/** OpenAI's default for this endpoint (API reference, "max_tokens"). */
const MAX_TOKENS = 16;
/** Prompts of one request. */
const MOST_PROMPTS = 16;

type Prompt = string | number[];
const tokens = list(number({ min: 0, integer: true }), { min: 1 });

/** A text, tokens, or a list of either. */
const prompts: Reader<Prompt[]> = (value, path) => {
  if (typeof value === "string") return [text(value, path)];
  if (!Array.isArray(value)) throw wrong(path, "a string, a list of token ids, or a list of those", value);
  if (typeof value[0] === "number") return [tokens(value, path)];
  return list<Prompt>((v, at) => Array.isArray(v) ? tokens(v, at) : text(v, at), { min: 1, max: MOST_PROMPTS })(
    value,
    path,
  );
};

const FIELDS = {
  ...SAMPLING,
  prompt: optional<Prompt[]>(prompts, []),
  logprobs: optional<number | null>(number({ min: 0, max: 20, integer: true }), null),
  echo: optional(flag, false),
};
type Completion = Values<typeof FIELDS>;

/** Adds the route. */
export function addCompletions(app: Hono, context: Context): void {
  app.post("/v1/completions", async (c) => {
    const engine = context.engine();
    const body = readFields(await readJson(c.req.raw), FIELDS, OTHERS);
    checkModel(body.model, engine);
    if (body.prompt.length === 0) throw invalid("prompt", "Cannot continue: 'prompt' is missing");
    if (body.echo && body.logprobs !== null) {
      throw invalid("echo", "Cannot give 'logprobs' of an echoed prompt: ask for one of the two");
    }
    const ids = body.prompt.map((p) => toIds(engine, p));
    const answers = new Answers(
      engine,
      c.req.raw.signal,
      context.metrics,
      (signal) =>
        ids.flatMap((prompt) =>
          Array.from({ length: body.n }, (_, choice) =>
            toRequest(body, {
              ids: prompt,
              choice,
              signal,
              size: engine.tokenizer.size,
              maxTokens: body.max_tokens ?? MAX_TOKENS,
              logprobs: body.logprobs,
            }))
        ),
    );
    const head = {
      id: freshId("cmpl"),
      object: "text_completion",
      created: Math.floor(Date.now() / 1000),
      model: engine.model,
    };
    const pieces = withEcho(answers, body, ids.map((p) => engine.tokenizer.decode(p, { skipSpecial: true })));
    if (!body.stream) return c.json(await whole(engine, body, answers, pieces, head));
    return eventStream(chunks(engine, body, answers, pieces, head), context.options.pingSeconds, () => answers.stop());
  });
}

function toIds(engine: Engine, prompt: Prompt): Int32Array {
  if (typeof prompt === "string") return encodeRendered(engine.tokenizer, prompt);
  const unknown = prompt.find((id) => id >= engine.tokenizer.size);
  if (unknown === undefined) return Int32Array.from(prompt);
  throw invalid("prompt", `Cannot read token ${unknown}: the model has ${engine.tokenizer.size}`);
}

/** The answers' pieces, before them the prompts where they are asked for. */
async function* withEcho(answers: Answers, body: Completion, texts: readonly string[]): AsyncGenerator<ChoicePiece> {
  if (body.echo) {
    for (let index = 0; index < texts.length * body.n; index++) {
      yield { index, piece: { text: texts[Math.floor(index / body.n)], ids: [] } };
    }
  }
  yield* answers.read();
}

type Pieces = AsyncGenerator<ChoicePiece>;

async function whole(
  engine: Engine,
  body: Completion,
  answers: Answers,
  pieces: Pieces,
  head: object,
): Promise<unknown> {
  const choices = Array.from({ length: body.n * body.prompt.length }, (_, index) => ({
    index,
    text: "",
    logprobs: null as TextLogprobs | null,
    finish_reason: null as string | null,
  }));
  for await (const { index, piece } of pieces) {
    const choice = choices[index];
    if (piece.logprobs) {
      const more = textLogprobs(engine.tokenizer, piece.logprobs, choice.text.length);
      choice.logprobs = choice.logprobs ? join(choice.logprobs, more) : more;
    }
    choice.text += piece.text;
    choice.finish_reason = piece.finish ?? null;
  }
  return { ...head, choices, usage: answers.usage(body.n) };
}

function join(a: TextLogprobs, b: TextLogprobs): TextLogprobs {
  return {
    tokens: [...a.tokens, ...b.tokens],
    token_logprobs: [...a.token_logprobs, ...b.token_logprobs],
    top_logprobs: [...a.top_logprobs, ...b.top_logprobs],
    text_offset: [...a.text_offset, ...b.text_offset],
  };
}

async function* chunks(
  engine: Engine,
  body: Completion,
  answers: Answers,
  pieces: Pieces,
  head: object,
): AsyncGenerator<unknown> {
  const usage = body.stream_options.usage ? { usage: null } : {};
  const written: number[] = [];
  for await (const { index, piece } of pieces) {
    const offset = written[index] ?? 0;
    written[index] = offset + piece.text.length;
    const logprobs = piece.logprobs?.length ? textLogprobs(engine.tokenizer, piece.logprobs, offset) : null;
    yield { ...head, choices: [{ index, text: piece.text, logprobs, finish_reason: piece.finish ?? null }], ...usage };
  }
  if (body.stream_options.usage) yield { ...head, choices: [], usage: answers.usage(body.n) };
  yield "[DONE]";
}
