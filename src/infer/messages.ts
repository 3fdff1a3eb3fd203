/** What the two sides of a worker engine say to each other. @module */
import { BackendError, ConfigError, DataError, FormatError, MemoryError, ShapeError } from "../core/errors.ts";
import type { EngineOptions } from "./open.ts";
import type { GenerateRequest, Piece } from "./types.ts";

/** What the worker opens its backend with; the same as ffi's `selectBackend` takes. */
export interface BackendChoice {
  /** "auto", or a backend's name. */
  backend: string;
  threads?: number;
  device?: number;
  library?: string;
}

/** All that a worker engine is opened with. */
export interface OpenEngineOptions extends EngineOptions {
  backend: BackendChoice;
}

/** To the worker. `open` comes first. */
export type ToWorker =
  | { kind: "open"; options: OpenEngineOptions }
  | { kind: "generate"; id: number; request: Omit<GenerateRequest, "signal"> }
  | { kind: "abort"; id: number }
  | { kind: "close" };

/** From the worker. `ready` or `failed` answers `open`; each `generate` is answered by pieces and one `end` or `error`. */
export type FromWorker =
  | { kind: "note"; sentence: string }
  | { kind: "progress"; bytes: number; total: number }
  | { kind: "ready"; model: string; created: number; contextLength: number; slots: number; limit: number }
  | { kind: "failed"; error: Failure }
  | { kind: "piece"; id: number; piece: Piece }
  | { kind: "end"; id: number }
  | { kind: "error"; id: number; error: Failure }
  | { kind: "closed" };

/** An error as data: structured cloning keeps no class. */
export interface Failure {
  name: string;
  message: string;
  /** Of a MemoryError, bytes. */
  needed?: number;
  available?: number;
  /** Of an error of the system, as ENOENT. */
  code?: string;
}

const CLASSES: Readonly<Record<string, (message: string, f: Failure) => Error>> = {
  ConfigError: (m) => new ConfigError(m),
  DataError: (m) => new DataError(m),
  FormatError: (m) => new FormatError(m),
  ShapeError: (m) => new ShapeError(m),
  BackendError: (m) => new BackendError(m),
  MemoryError: (m, f) => new MemoryError(m, f.needed ?? 0, f.available ?? 0),
  RangeError: (m) => new RangeError(m),
};

/** For sending. */
export function toFailure(e: unknown): Failure {
  if (e instanceof MemoryError) {
    const { name, message, needed, available } = e;
    return { name, message, needed, available };
  }
  if (!(e instanceof Error)) return { name: "Error", message: String(e) };
  const { name, message } = e, { code } = e as { code?: unknown };
  return typeof code === "string" ? { name, message, code } : { name, message };
}

/** The error again, of its class where the class is ours, with the system's code where it has one. */
export function toError(f: Failure): Error {
  const e = Object.hasOwn(CLASSES, f.name) ? CLASSES[f.name](f.message, f) : new Error(f.message);
  return f.code === undefined ? e : Object.assign(e, { code: f.code });
}
