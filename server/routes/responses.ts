/** POST /v1/responses, without memory: each request brings its whole conversation, and nothing is stored. @module */
import type { Hono } from "hono";
import type { Piece } from "../../src/infer/types.ts";
import type { Message } from "../../src/tokenizer/types.ts";
import { Answers, freshId } from "../answers.ts";
import { readJson } from "../body.ts";
import type { Context } from "../context.ts";
import { invalid } from "../errors.ts";
import { flag, list, number, object, optional, type Others, readFields, text, type Values } from "../fields.ts";
import { flatTool, input } from "../response_items.ts";
import { ResponseWriter } from "../response_writer.ts";
import { checkModel, OTHERS, SAMPLING, toRequest } from "../sampling.ts";
import { eventStream } from "../sse.ts";
import { toolChoice } from "../tools.ts";

const { n: _n, max_tokens: _max, ...SHARED } = SAMPLING;
const FIELDS = {
  ...SHARED,
  input: optional<Message[]>(input, []),
  instructions: optional<string | null>(text, null),
  max_output_tokens: optional<number | null>(number({ min: 1, integer: true }), null),
  metadata: optional<Record<string, unknown>>(object, {}),
  tools: optional<Record<string, unknown>[]>(list(flatTool), []),
  tool_choice: optional<"auto" | "none">(toolChoice, "auto"),
  parallel_tool_calls: optional(flag, true),
};

const isEmpty = (v: unknown) => Array.isArray(v) && v.length === 0;
const RESPONSE_OTHERS: Others = {
  ignored: OTHERS.ignored,
  usual: {
    previous_response_id: () => false,
    conversation: () => false,
    prompt: () => false,
    max_tool_calls: () => false,
    background: (v) => v === false,
    truncation: (v) => v === "disabled",
    include: isEmpty,
    top_logprobs: (v) => v === 0,
    reasoning: (v) => Object.values(v ?? {}).every((x) => x === null),
    text: (v) => {
      const { format, verbosity, ...rest } = (v ?? {}) as { format?: { type?: unknown }; verbosity?: unknown };
      return Object.keys(rest).length === 0 && (format?.type ?? "text") === "text" &&
        (verbosity ?? "medium") === "medium";
    },
  },
};

/** Adds the route. */
export function addResponses(app: Hono, context: Context): void {
  app.post("/v1/responses", async (c) => {
    const engine = context.engine();
    const body = readFields(await readJson(c.req.raw), FIELDS, RESPONSE_OTHERS);
    checkModel(body.model, engine);
    if (body.input.length === 0) throw invalid("input", "Cannot answer: 'input' is missing");
    const tools = body.tool_choice === "none" ? [] : body.tools;
    if (tools.length > 0 && !body.parallel_tool_calls) {
      throw invalid("parallel_tool_calls", "Cannot honour 'parallel_tool_calls' false: the model may call several");
    }
    const system: Message[] = body.instructions === null ? [] : [{ role: "system", content: body.instructions }];
    const ids = engine.prompt([...system, ...body.input], { tools });
    const maxTokens = body.max_output_tokens ?? Infinity, { size } = engine.tokenizer;
    const answers = new Answers(
      engine,
      c.req.raw.signal,
      context.metrics,
      (signal) => [toRequest(body, { ids, maxTokens, logprobs: null, choice: 0, signal, size })],
    );
    const writer = new ResponseWriter(describe(body, engine.model), tools.length > 0);
    if (body.stream) return eventStream(events(answers, writer), context.options.pingSeconds, answers.stop);
    let last: Piece | null = null;
    for await (const { piece } of answers.read()) writer.add(last = piece);
    const end = writer.end(last!.finish, answers.usage(1)).at(-1)!;
    return c.json(end.response as Record<string, unknown>);
  });
}

/** What a response says from its beginning: itself, and the request's settings. */
function describe(body: Values<typeof FIELDS>, model: string): Record<string, unknown> {
  const { instructions, max_output_tokens, metadata, temperature, top_p, tool_choice, parallel_tool_calls } = body;
  return {
    id: freshId("resp"),
    created_at: Math.floor(Date.now() / 1000),
    model,
    instructions,
    max_output_tokens,
    metadata,
    temperature,
    top_p,
    tools: body.tools.map((t) => ({ type: "function", strict: false, ...(t.function as object) })),
    tool_choice,
    parallel_tool_calls,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    store: false,
    text: { format: { type: "text" } },
    truncation: "disabled",
  };
}

async function* events(answers: Answers, writer: ResponseWriter): AsyncGenerator<unknown> {
  yield* writer.begin();
  let last: Piece | null = null;
  for await (const { piece } of answers.read()) yield* writer.add(last = piece);
  yield* writer.end(last!.finish, answers.usage(1));
}
