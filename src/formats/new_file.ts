/**
 * A file that appears whole or not at all: written under a temporary name beside its place, renamed at the end.
 * @module
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";

/** Longest single write, in bytes. */
const CHUNK = 64 << 20;

/** A file being written from front to back. */
export class NewFile {
  /** Bytes written so far. */
  size = 0;
  readonly #temporary: string;
  #fd: number;

  readonly path: string;

  /** @throws the error of node:fs when the folder is missing or not writable */
  constructor(path: string) {
    this.path = path;
    this.#temporary = `${path}.${process.pid}.tmp`;
    this.#fd = openSync(this.#temporary, "w");
  }

  /** Appends. @throws the error of node:fs, disk full included */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      at += writeSync(this.#fd, bytes, at, Math.min(CHUNK, bytes.length - at));
    }
    this.size += bytes.length;
  }

  /** Appends zeros up to the next multiple of `alignment`. */
  pad(alignment: number): void {
    this.write(new Uint8Array((alignment - this.size % alignment) % alignment));
  }

  /** Brings the bytes to the disk and the file to its name, replacing what had it. */
  commit(): void {
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    this.#fd = -1;
    renameSync(this.#temporary, this.path);
  }

  /** Removes the temporary file; does nothing after `commit`. */
  abandon(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    rmSync(this.#temporary, { force: true });
  }
}

/**
 * Writes one file through `fill`; on an error nothing is left behind.
 * @returns what `fill` returned
 */
export async function writeWhole<T>(path: string, fill: (file: NewFile) => Promise<T>): Promise<T> {
  const file = new NewFile(path);
  try {
    const result = await fill(file);
    file.commit();
    return result;
  } finally {
    file.abandon();
  }
}
