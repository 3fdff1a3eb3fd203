/** The reference's memory refuses what a device would let pass, and keeps f64. */
import { expect, test } from "vitest";
import { BackendError, MemoryError, ShapeError } from "../../src/core/errors.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { ReferenceBackend, tensorOf, valuesOf } from "./mod.ts";

test("an f32 tensor keeps f64, and gives f32 to those who ask for it", async () => {
  const be = new ReferenceBackend(), t = tensorOf(be, "f32", [Math.PI, 1e-300], 2);
  expect([...await valuesOf(be, t)]).toEqual([Math.PI, 1e-300]);
  const single = new Float32Array(2);
  await be.download(t, single);
  expect([...single]).toEqual([Math.fround(Math.PI), 0]);
});

test("memory that was never written reads as NaN", async () => {
  const be = new ReferenceBackend(), t: Tensor = { handle: be.alloc(8), byteOffset: 0, dtype: "f32", shape: [2] };
  expect([...await valuesOf(be, t)]).toEqual([NaN, NaN]);
});

test("a freed handle, a tensor past its memory and a crooked offset are errors", () => {
  const be = new ReferenceBackend(), t = tensorOf(be, "f32", [1, 2], 2);
  expect(() => be.fill({ ...t, byteOffset: 4 }, 0)).toThrow("it ends at 12 of 8");
  expect(() => be.fill({ ...t, byteOffset: 2, shape: [1] }, 0)).toThrow(ShapeError);
  be.free(t.handle);
  expect(() => be.add(t, t, t)).toThrow(BackendError);
  expect(() => be.free(t.handle)).toThrow("was freed or never made");
});

test("a limit is kept, with both numbers in the error", () => {
  const be = new ReferenceBackend(100), h = be.alloc(60);
  expect(() => be.alloc(50)).toThrow(MemoryError);
  expect(() => be.alloc(50)).toThrow("Cannot allocate 50 bytes: 40 of 100 are left");
  be.free(h);
  be.alloc(100);
  expect(be.memory()).toEqual({ active: 100, peak: 100, limit: 100 });
});

test("uploads of another size are refused", () => {
  const be = new ReferenceBackend(), t = tensorOf(be, "f32", [1, 2], 2);
  expect(() => be.upload(t, new Float64Array(3))).toThrow("the array has 3 elements, the tensor 2");
  expect(() => be.upload(t, new Float32Array(1))).toThrow("the array has 4 bytes, the tensor 8");
});

test("weights are decoded anew after they change", async () => {
  const be = new ReferenceBackend(), w: Tensor = { handle: be.alloc(4), byteOffset: 0, dtype: "bf16", shape: [1, 2] };
  const out = tensorOf(be, "f32", [0, 0], 1, 2);
  be.upload(w, Uint16Array.of(0x3f80, 0x4000));
  be.copy(out, w);
  expect([...await valuesOf(be, out)]).toEqual([1, 2]);
  be.upload(w, Uint16Array.of(0x4040, 0x4080));
  be.copy(out, w);
  expect([...await valuesOf(be, out)]).toEqual([3, 4]);
});

test("sequences that leave the rows, or pass their bound, are refused", () => {
  const be = new ReferenceBackend(),
    q = tensorOf(be, "f32", new Float64Array(8), 4, 1, 2),
    lse = tensorOf(be, "f32", new Float64Array(4), 1, 4);
  const o = { scale: 1, window: 0, softcap: 0 };
  const attend = (cu: number[], maxLen: number) =>
    be.attention(q, lse, q, q, q, { cu: tensorOf(be, "i32", cu, cu.length), maxLen }, o);
  expect(() => attend([0, 5], 5)).toThrow("Cannot attend over rows 0 to 5: N is 4, maxLen 5");
  expect(() => attend([0, 4], 3)).toThrow(RangeError);
});
