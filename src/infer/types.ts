/** What the server and the CLI ask of a model that answers. @module */
import type { ChatOptions, Message, Tokenizer } from "../tokenizer/types.ts";

/** Sampling, in the usual order: penalties, temperature, top-k, top-p, min-p. Defaults: greedy when temperature is 0. */
export interface SampleOptions {
  temperature: number;
  /** 0 = off. */
  topK: number;
  /** 1 = off. */
  topP: number;
  /** 0 = off. */
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias: ReadonlyMap<number, number>;
  seed: number | null;
}

/** One request. */
export interface GenerateRequest {
  ids: Int32Array;
  maxTokens: number;
  /** The answer ends before the first of these; none of them is empty. */
  stop: readonly string[];
  /** Ids that end the answer besides the model's own. */
  stopIds?: readonly number[];
  /** The model's own end is generated like any other token. */
  ignoreEos?: boolean;
  sample: SampleOptions;
  /** How many alternatives to report per token; null = no log-probabilities. */
  logprobs: number | null;
  signal?: AbortSignal;
}

/** Log-probability of one token with its alternatives, best first. */
export interface TokenLogprob {
  id: number;
  logprob: number;
  top: readonly { id: number; logprob: number }[];
}

/** A piece of an answer: whole UTF-8 text only, never a part of a stop string. */
export interface Piece {
  text: string;
  ids: readonly number[];
  logprobs?: readonly TokenLogprob[];
  /** Set on the last piece. */
  finish?: "stop" | "length" | "aborted";
  /** On the last piece. */
  usage?: { promptTokens: number; completionTokens: number; cachedTokens: number };
  /** On the last piece: seconds from admission to the first token, and from there to the last. */
  timings?: { promptSeconds: number; answerSeconds: number };
}

/** What serves requests; generation runs outside the caller's thread where the runtime allows. */
export interface Engine {
  readonly model: string;
  readonly created: number;
  readonly contextLength: number;
  readonly tokenizer: Tokenizer;
  /** Renders the chat and encodes it. @throws {DataError} */
  prompt(messages: readonly Message[], o?: Partial<ChatOptions>): Int32Array;
  /**
   * The answer piece by piece; leaving the loop early, or `signal`, stops the work.
   * @throws {QueueFullError} at once when the queue's limit is reached
   * @throws {ContextLengthError} at once when the prompt leaves no room for one token
   */
  generate(r: GenerateRequest): AsyncIterable<Piece>;
  stats(): { running: number; waiting: number; limit: number };
  close(): Promise<void>;
}
