/** The recording backend: the calls in order, the memory counted, nothing run. */
import { expect, test } from "vitest";
import { check } from "../../src/core/check.ts";
import { BackendError, MemoryError, ShapeError } from "../../src/core/errors.ts";
import { describe as line, RecordingBackend } from "../../src/core/recording.ts";
import type { Tensor } from "../../src/core/tensor.ts";

const at = (handle: number, byteOffset: number, ...shape: number[]): Tensor => ({
  handle,
  byteOffset,
  dtype: "f32",
  shape,
});

test("calls are kept in order, and equal lines mean equal launches", () => {
  const be = new RecordingBackend(), h = be.alloc(1024), x = at(h, 0, 2, 4), w = at(h, 256, 4, 4), y = at(h, 512, 2, 4);
  be.upload(x, new Float32Array(8));
  be.matmul(y, x, w, null, { transB: true });
  const cu: Tensor = { handle: h, byteOffset: 768, dtype: "i32", shape: [2] };
  const q = at(h, 0, 2, 1, 4), lse = at(h, 800, 1, 2);
  be.attention(q, lse, q, q, q, { cu, maxLen: 8 }, { scale: 1, window: 0, softcap: 0 });
  expect(be.take().map(line)).toEqual([
    "alloc 1024",
    "upload 1+0 f32[2,4] 32",
    'matmul 1+512 f32[2,4] 1+0 f32[2,4] 1+256 f32[4,4] null {"transB":true}',
    "attention 1+0 f32[2,1,4] 1+800 f32[1,2] 1+0 f32[2,1,4] 1+0 f32[2,1,4] 1+0 f32[2,1,4] " +
    '1+768 i32[2] maxLen 8 {"scale":1,"window":0,"softcap":0}',
  ]);
  expect(be.calls).toEqual([]);
});

test("memory is counted, limited and given back", () => {
  const be = new RecordingBackend({ limit: 1000 }), a = be.alloc(600);
  expect(() => be.alloc(500)).toThrow(MemoryError);
  be.free(a);
  be.alloc(1000);
  expect(be.memory()).toEqual({ active: 1000, peak: 1000, limit: 1000 });
  expect(() => be.free(a)).toThrow(BackendError);
});

test("it has every operation and checks shapes as real backends do", () => {
  const be = new RecordingBackend({ actDtype: "bf16" });
  for (const op of Object.keys(check)) expect(typeof be[op as keyof typeof check]).toBe("function");
  expect(be.actDtype).toBe("bf16");
  expect(() => be.add(at(1, 0, 2), at(1, 0, 2), at(1, 0, 3))).toThrow(ShapeError);
  expect(be.calls).toEqual([]);
});

test("nothing runs inside capture, which says so", () => {
  let ran = false;
  expect(new RecordingBackend().capture(() => void (ran = true))).toBeNull();
  expect(ran).toBe(false);
});
