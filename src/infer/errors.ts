/** The two ways in which a request is turned away before any work is done. @module */

/** As many requests as the queue takes are already waiting. */
export class QueueFullError extends RangeError {
  override name = "QueueFullError";
  readonly limit: number;
  constructor(limit: number) {
    super(`Cannot take another request: ${limit} are already running or waiting; try again in a moment`);
    this.limit = limit;
  }
}

/** The prompt does not fit the context with room for one new token. Both numbers are tokens. */
export class ContextLengthError extends RangeError {
  override name = "ContextLengthError";
  readonly promptTokens: number;
  readonly contextLength: number;
  constructor(promptTokens: number, contextLength: number) {
    super(
      `Cannot answer a prompt of ${promptTokens} tokens: the context holds ${contextLength}, one of them for the answer`,
    );
    this.promptTokens = promptTokens;
    this.contextLength = contextLength;
  }
}
