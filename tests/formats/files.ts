/** Folders and small files that the tests of this folder share. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ByteSource } from "../../src/formats/bytes.ts";
import type { GgufMeta } from "../../src/formats/gguf_write.ts";
import { typeOfValue } from "../../src/formats/gguf_write.ts";
import type { GgufValue } from "../../src/formats/gguf.ts";

/** A file or folder beside the repository that only developers and CI have; null when it is not there. */
export function shared(path: string): string | null {
  const full = fileURLToPath(new URL(`../../../shared/${path}`, import.meta.url));
  return existsSync(full) ? full : null;
}

/** Runs `work` with a fresh folder and removes it. */
export async function inFolder<T>(work: (dir: string) => T | Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "formats-"));
  try {
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Metadata with the usual type of each value. */
export function metaOf(values: Record<string, GgufValue>): GgufMeta {
  return new Map(Object.entries(values).map(([k, value]) => [k, { value, type: typeOfValue(value) }]));
}

/** Small numbers that differ from run to run of nothing: the same seed gives the same list. */
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 2 ** 32;
  };
}

/** Watches a source: throws when a read asks for more than the file holds. */
export function watched(source: ByteSource): ByteSource & { largest: number } {
  return {
    ...source,
    name: source.name,
    size: source.size,
    largest: 0,
    read(offset, length) {
      this.largest = Math.max(this.largest, length);
      return source.read(offset, length);
    },
  };
}
