/** What the rest of the house may ask of a tokenizer. @module */

/** A chat message; `content` may be absent beside tool calls. */
export interface Message {
  role: string;
  content: string | null;
  tool_calls?: unknown[];
  tool_call_id?: string;
  name?: string;
  [key: string]: unknown;
}

/** How a chat is rendered. */
export interface ChatOptions {
  /** End with the words that open an assistant turn. */
  addPrompt: boolean;
  /** Function schemas in OpenAI's shape. */
  tools?: readonly unknown[];
  /** Further variables of the template, such as `enable_thinking` or `date_string`. */
  variables?: Readonly<Record<string, unknown>>;
}

/** Text to ids and back, and the model's chat template. */
export interface Tokenizer {
  /** Number of ids, padding rows of the embedding not counted. */
  readonly size: number;
  readonly bos: number | null;
  /** Ids that end a turn or a text; the first is the one to train. */
  readonly eos: readonly number[];
  readonly pad: number | null;
  /** Whether the tokenizer itself puts BOS before a text. */
  readonly addBos: boolean;
  /** The chat template's source; null when the model has none. */
  readonly template: string | null;
  /** Where it was read from, for messages. */
  readonly source: string;
  /** Ids of `text`; special tokens inside the text are recognised; BOS only if `special` and `addBos`. */
  encode(text: string, o?: { special?: boolean }): Int32Array;
  decode(ids: ArrayLike<number>, o?: { skipSpecial?: boolean }): string;
  /** The piece of one id, as it stands in the vocabulary (for printing). */
  piece(id: number): string;
  /** Renders messages with the chat template. @throws {DataError} when there is no template or it refuses the messages */
  chat(messages: readonly Message[], o: ChatOptions): string;
}
