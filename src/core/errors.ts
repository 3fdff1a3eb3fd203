/**
 * The kinds of failure. A message says the action first, then the state, the wish and the way out, without a period:
 * `Cannot multiply [64,128] by [256,128]: inner sizes are 128 and 256`.
 * @module
 */

/** Shapes or dtypes that do not fit together; thrown before anything runs. */
export class ShapeError extends TypeError {
  override name = "ShapeError";
}

/** A file that does not parse. `offset` is the byte (binary) or line (text) at which reading stopped. */
export class FormatError extends SyntaxError {
  override name = "FormatError";
  constructor(message: string, readonly file?: string, readonly offset?: number) {
    super(message);
  }
}

/** A value outside what this build supports or this run allows: a flag, a config field, a dataset. */
export class ConfigError extends RangeError {
  override name = "ConfigError";
}

/** A dataset or record that cannot be trained on. `file` and `line` point at it where known. */
export class DataError extends RangeError {
  override name = "DataError";
  constructor(message: string, readonly file?: string, readonly line?: number) {
    super(message);
  }
}

/** A failure inside a backend: which op, the native status, the device. */
export class BackendError extends Error {
  override name = "BackendError";
  constructor(
    message: string,
    readonly op?: string,
    readonly status?: number,
    readonly device?: string,
  ) {
    super(message);
  }
}

/** The plan needs more memory than the device has. Both numbers are bytes. */
export class MemoryError extends RangeError {
  override name = "MemoryError";
  constructor(message: string, readonly needed: number, readonly available: number) {
    super(message);
  }
}
