/** POST /v1/chat/completions: a chat in, one or more answers out, whole or as a stream of chunks. @module */
import type { Hono } from "hono";
import type { Engine, Piece } from "../../src/infer/types.ts";
import type { Message } from "../../src/tokenizer/types.ts";
import { Answers, freshId } from "../answers.ts";
import { readJson } from "../body.ts";
import type { Context } from "../context.ts";
import { invalid } from "../errors.ts";
import { flag, list, number, object, optional, readFields, type Values } from "../fields.ts";
import { type ChatLogprobs, chatLogprobs } from "../logprobs.ts";
import { message } from "../messages.ts";
import { checkModel, OTHERS, SAMPLING, toRequest } from "../sampling.ts";
import { eventStream } from "../sse.ts";
import { tool, type ToolCall, ToolCallReader, toolChoice } from "../tools.ts";

const FIELDS = {
  ...SAMPLING,
  messages: optional<Message[]>(list(message, { min: 1 }), []),
  max_completion_tokens: optional<number | null>(number({ min: 1, integer: true }), null),
  logprobs: optional(flag, false),
  top_logprobs: optional<number | null>(number({ min: 0, max: 20, integer: true }), null),
  tools: optional<unknown[]>(list(tool), []),
  tool_choice: optional<"auto" | "none">(toolChoice, "auto"),
  parallel_tool_calls: optional(flag, true),
  chat_template_kwargs: optional<Record<string, unknown>>(object, {}),
};
type Chat = Values<typeof FIELDS>;

/** Adds the route. */
export function addChat(app: Hono, context: Context): void {
  app.post("/v1/chat/completions", async (c) => {
    const engine = context.engine();
    const chat = readFields(await readJson(c.req.raw), FIELDS, OTHERS);
    checkModel(chat.model, engine);
    checkChat(chat);
    const ids = engine.prompt(chat.messages, { tools: offered(chat), variables: chat.chat_template_kwargs });
    const answers = new Answers(
      engine,
      c.req.raw.signal,
      context.metrics,
      (signal) =>
        Array.from({ length: chat.n }, (_, choice) =>
          toRequest(chat, {
            ids,
            choice,
            signal,
            size: engine.tokenizer.size,
            maxTokens: chat.max_completion_tokens ?? chat.max_tokens ?? Infinity,
            logprobs: chat.logprobs ? chat.top_logprobs ?? 0 : null,
          })),
    );
    const head = { id: freshId("chatcmpl"), created: Math.floor(Date.now() / 1000), model: engine.model };
    if (!chat.stream) return c.json(await whole(engine, chat, answers, head));
    return eventStream(chunks(engine, chat, answers, head), context.options.pingSeconds, () => answers.stop());
  });
}

interface Head {
  id: string;
  created: number;
  model: string;
}

/** What stands in no single field. */
function checkChat(chat: Chat): void {
  if (chat.messages.length === 0) throw invalid("messages", "Cannot answer: 'messages' is missing");
  if (chat.top_logprobs !== null && !chat.logprobs) {
    throw invalid("top_logprobs", "Cannot give 'top_logprobs' without 'logprobs': true");
  }
  const { max_tokens, max_completion_tokens } = chat;
  if (max_tokens !== null && max_completion_tokens !== null && max_tokens !== max_completion_tokens) {
    throw invalid("max_tokens", "Cannot take both 'max_tokens' and 'max_completion_tokens': they differ");
  }
  if (offered(chat).length > 0 && !chat.parallel_tool_calls) {
    throw invalid("parallel_tool_calls", "Cannot honour 'parallel_tool_calls' false: the model may call several");
  }
}

/** The tools the model is shown. */
function offered(chat: Chat): unknown[] {
  return chat.tool_choice === "none" ? [] : chat.tools;
}

/** An answer as it grows: text, calls, and why it ended. */
class ChatAnswer {
  #calls: ToolCallReader | null;
  constructor(chat: Chat) {
    this.#calls = offered(chat).length > 0 ? new ToolCallReader() : null;
  }

  /** What `piece` adds, each call with its place among the answer's calls. */
  add(piece: Piece): { text: string; calls: (ToolCall & { index: number })[]; finish: string | null } {
    const finish = piece.finish ?? null;
    if (this.#calls === null) return { text: piece.text, calls: [], finish };
    const first = this.#calls.count;
    const now = this.#calls.push(piece.text);
    const rest = finish ? this.#calls.flush() : { text: "", calls: [] };
    const calls = [...now.calls, ...rest.calls].map((call, i) => ({ index: first + i, ...call }));
    const called = finish === "stop" && this.#calls.count > 0;
    return { text: now.text + rest.text, calls, finish: called ? "tool_calls" : finish };
  }
}

async function whole(engine: Engine, chat: Chat, answers: Answers, head: Head): Promise<unknown> {
  const choices = Array.from({ length: chat.n }, () => ({
    answer: new ChatAnswer(chat),
    text: "",
    calls: [] as ToolCall[],
    logprobs: null as ChatLogprobs | null,
    finish: null as string | null,
  }));
  for await (const { index, piece } of answers.read()) {
    const choice = choices[index], { text, calls, finish } = choice.answer.add(piece);
    choice.text += text;
    choice.calls.push(...calls.map(({ index: _, ...call }) => call));
    choice.finish = finish;
    if (!piece.logprobs) continue;
    choice.logprobs ??= { content: [], refusal: null };
    choice.logprobs.content.push(...chatLogprobs(engine.tokenizer, piece.logprobs).content);
  }
  return {
    ...head,
    object: "chat.completion",
    choices: choices.map(({ text, calls, logprobs, finish }, index) => ({
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && text.trim() === "" ? null : text,
        refusal: null,
        ...(calls.length > 0 ? { tool_calls: calls } : {}),
      },
      logprobs,
      finish_reason: finish,
    })),
    usage: answers.usage(chat.n),
  };
}

async function* chunks(engine: Engine, chat: Chat, answers: Answers, head: Head): AsyncGenerator<unknown> {
  const usage = chat.stream_options.usage ? { usage: null } : {};
  const chunk = (index: number, delta: object, finish: string | null = null, logprobs: ChatLogprobs | null = null) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index, delta, logprobs, finish_reason: finish }],
    ...usage,
  });
  const list = Array.from({ length: chat.n }, () => new ChatAnswer(chat));
  for (const index of list.keys()) yield chunk(index, { role: "assistant", content: null });
  for await (const { index, piece } of answers.read()) {
    const { text, calls, finish } = list[index].add(piece);
    const logprobs = piece.logprobs?.length ? chatLogprobs(engine.tokenizer, piece.logprobs) : null;
    if (text !== "" || logprobs) yield chunk(index, { content: text }, null, logprobs);
    if (calls.length > 0) yield chunk(index, { tool_calls: calls });
    if (finish) yield chunk(index, {}, finish);
  }
  if (chat.stream_options.usage) {
    yield { ...head, object: "chat.completion.chunk", choices: [], usage: answers.usage(chat.n) };
  }
  yield "[DONE]";
}
