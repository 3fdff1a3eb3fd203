/** 100,000 damaged headers: each is read, or refused with a typed error and an offset, quickly and in bounded memory. */
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { FormatError } from "../../src/core/errors.ts";
import { type ByteSource, memoryBytes } from "../../src/formats/bytes.ts";
import { parseGguf } from "../../src/formats/gguf_read.ts";
import { writeGguf } from "../../src/formats/gguf_write.ts";
import { parseSafetensors } from "../../src/formats/safetensors.ts";
import { floatTensor, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { inFolder, metaOf, random, watched } from "./files.ts";

const values = (n: number) => new Float32Array(n).fill(1);
const tensors = [
  floatTensor("token_embd.weight", values(8), [2, 4]),
  floatTensor("blk.0.attn_q.weight", values(16), [4, 4]),
  floatTensor("output_norm.weight", values(4), [4]),
];

/** One to four of: a byte changed, a bit turned, a length made huge, bytes cut out, doubled, or the end cut off. */
function mutate(original: Uint8Array, next: () => number): Uint8Array {
  let b = original.slice();
  const at = () => Math.floor(next() * b.length);
  for (let n = 1 + Math.floor(next() * 4); n > 0 && b.length > 0; n--) {
    const p = at();
    const kind = Math.floor(next() * 6);
    if (kind === 0) b[p] = Math.floor(next() * 256);
    else if (kind === 1) b[p] ^= 1 << Math.floor(next() * 8);
    else if (kind === 2) b.fill(next() < 0.5 ? 0xff : 0, p, p + 8);
    else if (kind === 3) b = b.slice(0, p);
    else {
      const end = Math.min(b.length, p + Math.floor(next() * 32));
      const tail = b.slice(kind === 4 ? end : p);
      b = new Uint8Array([...b.slice(0, kind === 4 ? p : end), ...tail]);
    }
  }
  return b;
}

/** Reads `rounds` mutations; returns how many were refused. */
function fuzz(original: Uint8Array, parse: (s: ByteSource) => unknown, rounds: number): number {
  const next = random(1);
  let refused = 0;
  for (let i = 0; i < rounds; i++) {
    const bytes = mutate(original, next);
    const source = watched(memoryBytes(bytes));
    try {
      parse(source);
    } catch (e) {
      if (!(e instanceof FormatError) || !(e.offset! >= 0) || !(e.offset! <= 2 ** 53)) {
        throw new Error(`mutation ${i} gave ${e}`, { cause: e });
      }
      refused++;
    }
    if (source.largest > bytes.length) throw new Error(`mutation ${i}: a read of ${source.largest} bytes`);
  }
  return refused;
}

test("50,000 damaged GGUF headers are read or refused with an offset", async () => {
  await inFolder(async (dir) => {
    const path = join(dir, "x.gguf");
    const meta = metaOf({
      "general.architecture": "llama",
      "general.alignment": 32,
      "tokenizer.ggml.tokens": ["a", "b", "<s>"],
      "tokenizer.ggml.scores": Float32Array.of(0, -1, -2),
      "tokenizer.ggml.add_bos_token": true,
    });
    await writeGguf(path, meta, tensors);
    const refused = fuzz(new Uint8Array(readFileSync(path)), parseGguf, 50_000);
    expect(refused).toBeGreaterThan(25_000);
    expect(refused).toBeLessThan(50_000);
  });
});

test("50,000 damaged safetensors headers are read or refused with an offset", async () => {
  await inFolder(async (dir) => {
    const path = join(dir, "x.safetensors");
    await writeSafetensors(path, tensors);
    const refused = fuzz(new Uint8Array(readFileSync(path)), parseSafetensors, 50_000);
    expect(refused).toBeGreaterThan(25_000);
    expect(refused).toBeLessThan(50_000);
  });
});
