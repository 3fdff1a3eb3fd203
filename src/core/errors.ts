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
  readonly file?: string;
  readonly offset?: number;

  constructor(message: string, file?: string, offset?: number) {
    super(message);
    this.file = file;
    this.offset = offset;
  }
}

/** A value outside what this build supports or this run allows: a flag, a config field, a dataset. */
export class ConfigError extends RangeError {
  override name = "ConfigError";
}

/** A dataset or record that cannot be trained on. `file` and `line` point at it where known. */
export class DataError extends RangeError {
  override name = "DataError";
  readonly file?: string;
  readonly line?: number;

  constructor(message: string, file?: string, line?: number) {
    super(message);
    this.file = file;
    this.line = line;
  }
}

/** A failure inside a backend: which op, the native status, the device. */
export class BackendError extends Error {
  override name = "BackendError";
  readonly op?: string;
  readonly status?: number;
  readonly device?: string;

  constructor(message: string, op?: string, status?: number, device?: string) {
    super(message);
    this.op = op;
    this.status = status;
    this.device = device;
  }
}

/** The plan needs more memory than the device has. Both numbers are bytes. */
export class MemoryError extends RangeError {
  override name = "MemoryError";
  readonly needed: number;
  readonly available: number;

  constructor(message: string, needed: number, available: number) {
    super(message);
    this.needed = needed;
    this.available = available;
  }
}
