/**
 * The files whose pages are device memory, held open while they are: a file that is written to or cut short under a model
 * would silently be another model, so each is looked at again whenever results are waited for.
 * @module
 */
import { closeSync, fstatSync, openSync, statSync } from "node:fs";
import type { FileStamp } from "../src/core/backend.ts";
import { BackendError } from "../src/core/errors.ts";
import type { Handle } from "../src/core/tensor.ts";

/** Whether a file is the one that was stamped, as it was then. */
function same(file: FileStamp, s: { dev: number; ino: number; size: number; mtimeMs: number }): boolean {
  return s.dev === file.dev && s.ino === file.ino && s.size === file.size && s.mtimeMs === file.mtimeMs;
}

/** Handles over files, by the file. */
export class MappedFiles {
  readonly #files = new Map<string, { readonly file: FileStamp; readonly fd: number; handles: number }>();
  readonly #of = new Map<Handle, string>();

  /**
   * Maps with `map` what must be the file that was stamped, and keeps the file open for the handle.
   * @param free gives a handle back that cannot be used after all
   * @returns the handle, or null as `map` does
   * @throws {BackendError} when the path leads to another file by now, or the file was written to
   */
  open(file: FileStamp, map: () => Handle | null, free: (h: Handle) => void): Handle | null {
    const known = this.#files.get(file.path), fd = known?.fd ?? openSync(file.path, "r");
    let handle: Handle | null = null, held = false;
    try {
      handle = map();
      // The library opened the path itself: what lies there before and after is what it got.
      if (!same(file, fstatSync(fd)) || !same(file, statSync(file.path))) throw changed(file);
      held = handle !== null;
      if (handle !== null) this.#hold(file, fd, handle);
    } finally {
      if (!held && handle !== null) free(handle);
      if (!held && !known) closeSync(fd);
    }
    return handle;
  }

  #hold(file: FileStamp, fd: number, handle: Handle): void {
    const known = this.#files.get(file.path) ?? { file, fd, handles: 0 };
    known.handles++;
    this.#files.set(file.path, known);
    this.#of.set(handle, file.path);
  }

  /** Forgets a handle, whoever's it is, and closes its file with the last one. */
  free(handle: Handle): void {
    const path = this.#of.get(handle), held = path === undefined ? undefined : this.#files.get(path);
    if (!held || path === undefined) return;
    this.#of.delete(handle);
    if (--held.handles > 0) return;
    closeSync(held.fd);
    this.#files.delete(path);
  }

  /** @throws {BackendError} when a file is not what it was when it was mapped */
  check(): void {
    for (const { file, fd } of this.#files.values()) if (!same(file, fstatSync(fd))) throw changed(file);
  }

  close(): void {
    for (const { fd } of this.#files.values()) closeSync(fd);
    this.#files.clear();
    this.#of.clear();
  }
}

/**
 * Runs `read`, which opens the path itself, only over the file that was stamped.
 * @throws {BackendError} when the path leads to another file by now, or the file was written to before `read` had ended
 */
export function readUnchanged(file: FileStamp, read: () => void): void {
  const check = (): void => {
    if (same(file, statSync(file.path))) return;
    const text = `Cannot read '${file.path}': the file changed since it was opened; load the model again`;
    throw new BackendError(text, "read");
  };
  check();
  read();
  check();
}

function changed(file: FileStamp): BackendError {
  const way = "it is in use as device memory; write new weights to a new file and load the model again";
  return new BackendError(`Cannot go on with '${file.path}': the file changed since it was opened, and ${way}`, "map");
}
