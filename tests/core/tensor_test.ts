/** Tensors as records, and arenas over a slab. */
import { expect, test } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import { bytesOf, DTYPES } from "../../src/core/dtype.ts";
import { MemoryError, ShapeError } from "../../src/core/errors.ts";
import { RecordingBackend } from "../../src/core/recording.ts";
import { byteLength, cols, reshape, rowsOf, slice, type Tensor } from "../../src/core/tensor.ts";

const t: Tensor = { handle: 1, byteOffset: 512, dtype: "q8_0", shape: [4, 3, 64] };

test("sizes count blocks", () => {
  expect([byteLength(t), cols(t), rowsOf(t)]).toEqual([4 * 3 * 2 * 34, 64, 12]);
  expect(() => bytesOf("q4_k", 300)).toThrow("Cannot store 300 elements as q4_k: the block is 256");
});

test("slice() and reshape() are views", () => {
  expect(slice(t, 1, 3)).toEqual({ ...t, byteOffset: 512 + 3 * 2 * 34, shape: [2, 3, 64] });
  expect(reshape(t, 12, 64)).toEqual({ ...t, shape: [12, 64] });
  expect(() => slice(t, 2, 5)).toThrow(ShapeError);
  expect(() => reshape(t, 5, 5)).toThrow("Cannot view [4,3,64] as [5,5]: 768 and 25 elements");
});

test("no two types share a code", () => {
  expect(new Set(Object.values(DTYPES).map((d) => d.code)).size).toBe(Object.keys(DTYPES).length);
});

test("an arena places tensors at aligned offsets, gives them back, and knows its peak", () => {
  const be = new RecordingBackend(), arena = new Arena(be, 4096);
  const a = arena.tensor("f32", 3), mark = arena.mark(), b = arena.act(100);
  expect([a.byteOffset, b.byteOffset, b.dtype]).toEqual([0, 256, "f32"]);
  arena.release(mark);
  expect(arena.tensor("bf16", 7).byteOffset).toBe(256);
  expect(arena.peakBytes).toBe(256 + 512);
  arena.close();
  expect(be.memory()).toEqual({ active: 0, peak: 4096, limit: 0 });
});

test("a full arena says what it needs", () => {
  const arena = new Arena(new RecordingBackend(), 1024);
  arena.tensor("f32", 200);
  expect(() => arena.tensor("f32", 65)).toThrow("Cannot place [65] f32: 1536 bytes needed, the arena has 1024");
  expect(() => arena.tensor("f32", 65)).toThrow(MemoryError);
});
