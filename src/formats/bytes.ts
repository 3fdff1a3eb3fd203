/**
 * Where the bytes of a file come from: positional reads, bounded by the size known at opening, so that nothing here
 * allocates more than the file holds. Files over 4 GiB are read in pieces; no file is read whole.
 * @module
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { FileStamp } from "../core/backend.ts";
import { FormatError } from "../core/errors.ts";

/** Longest single read; node:fs takes at most 2 GiB - 1 at once. */
const CHUNK = 64 << 20;

/** Bytes that can be read at any place. */
export interface ByteSource {
  /** Path, for messages. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** The file that the bytes are, for those who map it; absent when they are no file's. */
  readonly file?: FileStamp;
  /**
   * `length` bytes from `offset`, in memory of their own (so typed views of them are aligned).
   * @throws {FormatError} when the range leaves the file
   */
  read(offset: number, length: number): Uint8Array<ArrayBuffer>;
  /** Fills `into` from `offset`. @throws {FormatError} when the range leaves the file */
  readInto(offset: number, into: Uint8Array): void;
  close(): void;
}

function refuseRange(name: string, size: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && Number.isSafeInteger(offset) && offset + length <= size) return;
  throw new FormatError(`Cannot read ${length} bytes at ${offset} of '${name}': it has ${size}`, name, size);
}

/** An open file. */
class FileSource implements ByteSource {
  readonly size: number;
  readonly file: FileStamp;
  #fd: number;

  readonly name: string;

  constructor(name: string) {
    this.name = name;
    this.#fd = openSync(name, "r");
    const { dev, ino, size, mtimeMs } = fstatSync(this.#fd);
    this.size = size;
    this.file = { path: name, dev, ino, size, mtimeMs };
  }

  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    refuseRange(this.name, this.size, offset, length);
    const out = new Uint8Array(length);
    this.readInto(offset, out);
    return out;
  }

  readInto(offset: number, into: Uint8Array): void {
    refuseRange(this.name, this.size, offset, into.length);
    for (let at = 0; at < into.length;) {
      const n = readSync(this.#fd, into, at, Math.min(CHUNK, into.length - at), offset + at);
      if (n === 0) {
        throw new FormatError(`Cannot read '${this.name}': it became shorter while open`, this.name, offset + at);
      }
      at += n;
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Opens a file for positional reads. @throws the error of node:fs when it cannot be opened */
export function openBytes(path: string): ByteSource {
  return new FileSource(path);
}

/** Bytes in memory as a source; reads copy. */
export function memoryBytes(bytes: Uint8Array, name = "memory"): ByteSource {
  return {
    name,
    size: bytes.length,
    read(offset, length) {
      refuseRange(name, bytes.length, offset, length);
      return bytes.slice(offset, offset + length) as Uint8Array<ArrayBuffer>;
    },
    readInto(offset, into) {
      refuseRange(name, bytes.length, offset, into.length);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    close() {},
  };
}
