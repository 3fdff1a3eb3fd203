/** Answering: an engine in this thread or in a worker, and what it is asked and gives. @module */
export { ContextLengthError, QueueFullError } from "./errors.ts";
export { type EngineContext, type EngineOptions, openEngine } from "./open.ts";
export { PLAIN } from "./sample.ts";
export type { Engine, GenerateRequest, Piece, SampleOptions, TokenLogprob } from "./types.ts";
export type { BackendChoice, OpenEngineOptions } from "./messages.ts";
export { startEngine } from "./worker.ts";
