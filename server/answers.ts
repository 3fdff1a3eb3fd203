/** The answers of one HTTP request: all its choices, started together, read as they come. @module */
import type { Engine, GenerateRequest, Piece } from "../src/infer/types.ts";
import { ApiError } from "./errors.ts";
import type { Metrics } from "./metrics.ts";

/** Tokens in OpenAI's words. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

/** One piece of choice `index`. */
export interface ChoicePiece {
  index: number;
  piece: Piece;
}

/** Answers under way. Either all requests are taken or none. */
export class Answers {
  #pieces: AsyncIterator<Piece>[] = [];
  /** Stops listening to the client; without this Deno warns when a request has been answered. */
  #deaf: () => void;
  #controller = new AbortController();
  #last: Piece[] = [];
  readonly #metrics: Metrics;

  /**
   * @param build the requests, given the signal that ends them all
   * @param client aborted when the client is gone
   * @throws what the engine throws for any of them
   */
  constructor(
    engine: Engine,
    client: AbortSignal,
    metrics: Metrics,
    build: (signal: AbortSignal) => readonly GenerateRequest[],
  ) {
    this.#metrics = metrics;
    this.#deaf = () => client.removeEventListener("abort", this.stop);
    client.addEventListener("abort", this.stop);
    if (client.aborted) this.stop();
    try {
      for (const r of build(this.#controller.signal)) this.#pieces.push(engine.generate(r)[Symbol.asyncIterator]());
    } catch (e) {
      this.stop();
      throw e;
    }
  }

  /** Ends all work on this request. */
  readonly stop = (): void => {
    this.#deaf();
    this.#controller.abort();
  };

  /** The pieces of all choices in the order they come. @throws {ApiError} when the engine ends an answer unfinished */
  async *read(): AsyncGenerator<ChoicePiece> {
    const next = async (index: number) => ({ index, result: await this.#pieces[index].next() });
    const pending = new Map(this.#pieces.map((_, index) => [index, next(index)]));
    try {
      while (pending.size > 0) {
        const { index, result } = await Promise.race(pending.values());
        pending.delete(index);
        if (result.done) continue;
        const piece = result.value;
        pending.set(index, next(index));
        if (piece.finish) this.#end(index, piece);
        yield { index, piece };
      }
    } finally {
      this.stop();
      // The others' failures belong to this one, which is thrown; they must not appear as unhandled.
      for (const p of pending.values()) p.catch(() => {});
    }
  }

  /** Usage over all choices; `perPrompt` choices share one prompt, which is counted once. */
  usage(perPrompt: number): Usage {
    const all = this.#last.map((p) => p.usage!);
    const prompts = all.filter((_, i) => i % perPrompt === 0);
    const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);
    const prompt_tokens = sum(prompts.map((u) => u.promptTokens));
    const completion_tokens = sum(all.map((u) => u.completionTokens));
    return {
      prompt_tokens,
      completion_tokens,
      total_tokens: prompt_tokens + completion_tokens,
      prompt_tokens_details: { cached_tokens: sum(prompts.map((u) => u.cachedTokens)) },
    };
  }

  #end(index: number, piece: Piece): void {
    this.#metrics.count(piece);
    this.#last[index] = piece;
    if (piece.finish === "aborted") {
      throw new ApiError("unavailable_error", "Cannot finish the answer: it was stopped before its end");
    }
  }
}

/** An id in OpenAI's manner: the kind, then 29 characters that no other answer has. */
export function freshId(kind: "chatcmpl" | "cmpl" | "call" | "resp" | "msg" | "fc"): string {
  return `${kind}-${crypto.randomUUID().replaceAll("-", "").slice(0, 29)}`;
}
