/** How the head cuts its rows: the loss itself, over chunks of any size, is decoder_test's. */
import { expect, test } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { defaultChunk, Head } from "../../src/nn/head.ts";
import { Linear } from "../../src/nn/linear.ts";
import { createRun } from "../../src/nn/run.ts";
import { ReferenceBackend } from "../reference/mod.ts";

/** Rows of each chunk that a loss over `m` rows takes. */
function chunksOf(m: number, chunk: number): number[] {
  const be = new ReferenceBackend(),
    arena = new Arena(be, 1 << 20),
    seen: number[] = [],
    loss = be.crossEntropy.bind(be);
  be.crossEntropy = (out, ...rest) => (seen.push(out.shape[0]), loss(out, ...rest));
  const place = (dtype: "i32" | "f32", ...shape: number[]): Tensor => {
    const t = arena.tensor(dtype, ...shape);
    be.fill(t, 0);
    return t;
  };
  const head = new Head(new Linear("lm_head", { frozen: place("f32", 5, 4), param: null }, null, [5], null), 5, 0);
  const run = createRun({ be, arena, pos: place("i32", m), cu: place("i32", 2), maxLen: m });
  const [rows, targets] = [place("i32", m), place("i32", m)], [weights, out] = [place("f32", m), place("f32", m)];
  head.loss(place("f32", m, 4), { rows, targets, weights, loss: out, chunk }, run, false);
  return seen;
}

test("chunks are of nearly one size: a short one would read all of the table for a few rows", () => {
  expect(chunksOf(512, 171)).toEqual([171, 171, 170]);
  expect(chunksOf(100, 33)).toEqual([25, 25, 25, 25]);
  expect(chunksOf(7, 16)).toEqual([7]);
});

test("a chunk's f32 logits are near 64 MiB, and a pass takes whole chunks", () => {
  for (const [vocab, tokens] of [[49152, 512], [49152, 513], [128256, 4096], [262144, 100], [151936, 2048]]) {
    const chunk = defaultChunk(vocab, "f32", tokens), MiB = 4 * vocab * chunk / 2 ** 20;
    expect(MiB).toBeGreaterThan(47);
    expect(MiB).toBeLessThan(97);
    expect(chunk * Math.ceil(tokens / chunk) - tokens).toBeLessThan(Math.ceil(tokens / chunk));
  }
  expect(defaultChunk(256, "f32", 512)).toBe(512);
  expect(defaultChunk(32000, "f32", 1)).toBe(16);
});
