/**
 * Tokenised rows: five bytes a token in slabs, which go to a temporary file when there are too many for memory. A row is read
 * by its number, so that any order costs the same.
 * @module
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Row, Rows } from "./types.ts";

/** Bytes of a slab; longer rows get one of their own. */
const SLAB = 4 << 20;

/** Default of `PrepareOptions.memory`, in bytes. */
const MEMORY = 512 << 20;

/** A growing list of numbers. */
class Numbers {
  #data = new Float64Array(1024);
  length = 0;
  push(n: number): void {
    if (this.length === this.#data.length) {
      const more = new Float64Array(2 * this.length);
      more.set(this.#data);
      this.#data = more;
    }
    this.#data[this.length++] = n;
  }
  at(i: number): number {
    return this.#data[i]!;
  }
}

/** Rows as they are made; append first, then read. */
export class RowStore implements Rows {
  #slabs: (Uint8Array | null)[] = [];
  #used = 0;
  /** Place of each row: its slab, its byte in the slab; then its tokens, its record, its tokens lost. */
  #slab = new Numbers();
  #byte = new Numbers();
  #tokens = new Numbers();
  #source = new Numbers();
  #truncated = new Numbers();
  #held = 0;
  #file: { fd: number; folder: string; written: number; at: Map<number, number> } | null = null;

  private readonly memory: number;

  constructor(memory: number = MEMORY) {
    this.memory = memory;
  }

  get length(): number {
    return this.#tokens.length;
  }

  /** Bytes that are in memory. */
  get bytes(): number {
    return this.#held;
  }

  push(row: Row): void {
    const n = row.ids.length, bytes = 5 * n;
    let slab = this.#slabs.at(-1);
    if (!slab || this.#used + bytes > slab.length) {
      slab = new Uint8Array(Math.max(SLAB, bytes));
      this.#slabs.push(slab);
      this.#used = 0;
      this.#held += slab.length;
      if (this.#held > this.memory) this.#spill();
    }
    slab.set(new Uint8Array(row.ids.buffer, row.ids.byteOffset, 4 * n), this.#used);
    slab.set(row.weights, this.#used + 4 * n);
    this.#slab.push(this.#slabs.length - 1);
    this.#byte.push(this.#used);
    this.#tokens.push(n);
    this.#source.push(row.source);
    this.#truncated.push(row.truncated);
    this.#used += bytes;
  }

  /** Writes all full slabs to the file and forgets them. */
  #spill(): void {
    if (!this.#file) {
      const folder = mkdtempSync(join(tmpdir(), "unsloth-rows-"));
      this.#file = { fd: openSync(join(folder, "rows.bin"), "w+"), folder, written: 0, at: new Map() };
      process.once("exit", this.#remove);
    }
    for (let i = 0; i < this.#slabs.length - 1; i++) {
      const slab = this.#slabs[i];
      if (!slab) continue;
      for (let done = 0; done < slab.length;) {
        done += writeSync(this.#file.fd, slab, done, slab.length - done, this.#file.written + done);
      }
      this.#file.at.set(i, this.#file.written);
      this.#file.written += slab.length;
      this.#held -= slab.length;
      this.#slabs[i] = null;
    }
  }

  tokens(i: number): number {
    this.#check(i);
    return this.#tokens.at(i);
  }

  at(i: number): Row {
    this.#check(i);
    const n = this.#tokens.at(i), from = this.#byte.at(i), index = this.#slab.at(i), slab = this.#slabs[index];
    const bytes = slab ? slab.slice(from, from + 5 * n) : this.#read(this.#file!.at.get(index)! + from, 5 * n);
    return {
      ids: new Int32Array(bytes.buffer, 0, n),
      weights: bytes.subarray(4 * n),
      source: this.#source.at(i),
      truncated: this.#truncated.at(i),
    };
  }

  #read(at: number, length: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const n = readSync(this.#file!.fd, out, done, length - done, at + done);
      if (n === 0) {
        throw new RangeError(`Cannot read a row: the temporary file in '${this.#file!.folder}' became shorter`);
      }
      done += n;
    }
    return out;
  }

  #check(i: number): void {
    if (i < 0 || i >= this.length) throw new RangeError(`Cannot read row ${i}: there are ${this.length}`);
  }

  #remove = (): void => {
    if (!this.#file) return;
    closeSync(this.#file.fd);
    rmSync(this.#file.folder, { recursive: true, force: true });
    this.#file = null;
  };

  close(): void {
    process.removeListener("exit", this.#remove);
    this.#remove();
    this.#slabs = [];
  }
}

/** Some rows of others, in a given order. Closing it closes nothing. */
export function selectRows(rows: Rows, indices: ArrayLike<number>): Rows {
  const at = (i: number) => {
    if (i < 0 || i >= indices.length) throw new RangeError(`Cannot read row ${i}: there are ${indices.length}`);
    return indices[i]!;
  };
  return { length: indices.length, tokens: (i) => rows.tokens(at(i)), at: (i) => rows.at(at(i)), close() {} };
}
