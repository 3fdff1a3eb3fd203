/** The engine within the caller's own thread: a queue over a runner, with the tokenizer beside it. @module */
import { encodeChat } from "../tokenizer/chat.ts";
import type { ChatOptions, Message, Tokenizer } from "../tokenizer/types.ts";
import { RequestQueue, type Runner } from "./queue.ts";
import type { Engine, GenerateRequest, Piece } from "./types.ts";

/** What an engine is made of. */
export interface EngineParts {
  /** The name clients see. */
  model: string;
  tokenizer: Tokenizer;
  runner: Runner;
  /** Ids that end an answer, from the model's files; the tokenizer's are added. */
  eos: readonly number[];
  /** Requests that may wait while all slots run. */
  waiting: number;
  /** See QueueOptions. */
  poll?(): void;
}

/** An engine that computes where it is called: between two steps the thread does other things, during one it does not. */
export function createEngine({ model, tokenizer, runner, eos, waiting, poll }: EngineParts): Engine {
  const queue = new RequestQueue(runner, {
    tokenizer,
    eos: [...new Set([...eos, ...tokenizer.eos])],
    limit: runner.slots + waiting,
    poll,
  });
  return {
    model,
    tokenizer,
    created: Math.floor(Date.now() / 1000),
    contextLength: runner.contextLength,
    prompt: (messages: readonly Message[], o: Partial<ChatOptions> = {}) =>
      encodeChat(tokenizer, messages, { addPrompt: true, ...o }),
    generate: (r: GenerateRequest): AsyncIterable<Piece> => queue.submit(r),
    stats: () => queue.stats(),
    close: () => queue.close(),
  };
}
