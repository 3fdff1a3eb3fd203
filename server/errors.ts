/**
 * Failures in OpenAI's shape, `{"error": {message, type, param, code}}`, with llama-server's names of the types and the
 * HTTP status as the code. The sentences are those of the rest of the house.
 * @module
 */
import { ConfigError, DataError } from "../src/core/errors.ts";
import { ContextLengthError, QueueFullError } from "../src/infer/errors.ts";

/** Status of each type of error. */
const STATUS = {
  invalid_request_error: 400,
  exceed_context_size_error: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  server_error: 500,
  not_supported_error: 501,
  unavailable_error: 503,
} as const;

/** Names of the types. */
export type ErrorType = keyof typeof STATUS;

/** What a client is told. */
export interface ErrorBody {
  error: { message: string; type: ErrorType; param: string | null; code: number; [extra: string]: unknown };
}

/** A failure with its place in the protocol. `param` names the field at fault. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly type: ErrorType;
  readonly param: string | null;
  readonly extra: Readonly<Record<string, unknown>>;
  readonly status: number;
  constructor(
    type: ErrorType,
    message: string,
    param: string | null = null,
    extra: Readonly<Record<string, unknown>> = {},
    status: number = STATUS[type],
  ) {
    super(message);
    this.type = type;
    this.param = param;
    this.extra = extra;
    this.status = status;
  }

  /** The JSON of the answer, and of the last event of a stream that fails. */
  body(): ErrorBody {
    const { message, type, param, status } = this;
    return { error: { message, type, param, code: status, ...this.extra } };
  }
}

/** A field that is wrong, missing or not known. */
export function invalid(param: string | null, message: string): ApiError {
  return new ApiError("invalid_request_error", message, param);
}

/** Any failure as an ApiError: what the request is to blame for is 400, a full queue 503, the rest 500. */
export function toApiError(e: unknown): ApiError {
  if (e instanceof ApiError) return e;
  if (e instanceof QueueFullError) return new ApiError("unavailable_error", e.message);
  if (e instanceof ContextLengthError) {
    const extra = { n_prompt_tokens: e.promptTokens, n_ctx: e.contextLength };
    return new ApiError("exceed_context_size_error", e.message, "messages", extra);
  }
  if (e instanceof DataError || e instanceof ConfigError) return invalid(null, e.message);
  return new ApiError("server_error", e instanceof Error ? e.message : String(e));
}
