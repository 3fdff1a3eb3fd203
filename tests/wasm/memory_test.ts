/** The allocator over one shared memory that grows: reuse, limits with both numbers, and what a wrong tensor meets. */
import { describe, expect, test } from "vitest";
import { BackendError, MemoryError, ShapeError } from "../../src/core/errors.ts";
import { Random } from "../../src/core/philox.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { LinearMemory } from "../../wasm/memory.ts";
import { createWasmBackend } from "../../wasm/mod.ts";

const MIB = 1 << 20;
const bytes = (handle: number, n: number, byteOffset = 0): Tensor => ({ handle, byteOffset, dtype: "u8", shape: [n] });

function memory(limit: number): LinearMemory {
  const m = new LinearMemory(limit);
  m.reserve(65536, 1000);
  return m;
}

describe("LinearMemory", () => {
  test("hands out blocks that do not overlap, whatever is freed in between", () => {
    const m = memory(64 * MIB), r = new Random(7), live = new Map<number, [number, number]>();
    for (let i = 0; i < 2000; i++) {
      if (live.size > 0 && r.uniform() < 0.45) {
        const [h] = [...live.keys()].slice(r.below(live.size));
        m.free(h);
        live.delete(h);
        continue;
      }
      const size = 1 + r.below(50_000), h = m.alloc(size), at = m.at(bytes(h, size));
      expect(at % 256).toBe(0);
      for (const [a, b] of live.values()) expect(at >= b || at + size <= a).toBe(true);
      live.set(h, [at, at + size]);
    }
    live.forEach((_, h) => m.free(h));
    expect(m.active).toBe(0);
  });

  test("joins freed neighbours, so that a block as large as all of them fits again", () => {
    const m = memory(8 * MIB), handles = Array.from({ length: 7 }, () => m.alloc(MIB));
    expect(() => m.alloc(MIB)).toThrow(MemoryError);
    for (const i of [1, 3, 5, 0, 2, 4, 6]) m.free(handles[i]);
    expect(() => m.free(m.alloc(7 * MIB))).not.toThrow();
  });

  test("says what was asked and what is left when it is full", () => {
    const m = memory(4 * MIB);
    m.alloc(MIB);
    try {
      m.alloc(5 * MIB);
      expect.unreachable();
    } catch (e) {
      expect(e).toBeInstanceOf(MemoryError);
      const { needed, available, message } = e as MemoryError;
      expect(needed).toBe(5 * MIB);
      expect(available).toBe(m.limit - MIB);
      expect(message).toContain(`${5 * MIB} bytes`);
      expect(message).toContain(`${available} of ${m.limit} are left`);
    }
  });

  test("keeps peak and active bytes", () => {
    const m = memory(16 * MIB), a = m.alloc(2 * MIB), b = m.alloc(3 * MIB);
    m.free(a);
    expect([m.active, m.peak]).toEqual([3 * MIB, 5 * MIB]);
    m.free(b);
    expect([m.active, m.peak]).toEqual([0, 5 * MIB]);
  });

  test("refuses a handle that was freed and one that never was", () => {
    const m = memory(4 * MIB), h = m.alloc(100);
    m.free(h);
    expect(() => m.free(h)).toThrow(BackendError);
    expect(() => m.at(bytes(h, 100))).toThrow(/handle \d+: it was freed or never made/);
    expect(m.alloc(100)).not.toBe(h);
    expect(() => m.at(bytes(999, 1))).toThrow(BackendError);
  });

  test("refuses a tensor that leaves its block, starts before it or lies askew", () => {
    const m = memory(4 * MIB), h = m.alloc(100);
    expect(() => m.at(bytes(h, 101))).toThrow(ShapeError);
    expect(() => m.at(bytes(h, 50, 51))).toThrow("it ends at 101 of 100");
    expect(() => m.at(bytes(h, 4, -4))).toThrow(ShapeError);
    expect(() => m.at({ handle: h, byteOffset: 2, dtype: "f32", shape: [1] })).toThrow("no multiple of 4");
    expect(() => m.at({ handle: h, byteOffset: 2, dtype: "f16", shape: [1] })).not.toThrow();
  });

  test("refuses sizes that are no sizes", () => {
    const m = memory(4 * MIB);
    expect(() => m.alloc(-1)).toThrow(RangeError);
    expect(() => m.alloc(NaN)).toThrow(RangeError);
  });
});

describe("the backend's memory", () => {
  test("grows under tensors without losing them, and workers see what came later", async () => {
    const be = await createWasmBackend({ threads: 3 });
    const first = { handle: be.alloc(4 * 70_000), byteOffset: 0, dtype: "f32" as const, shape: [70_000] };
    be.upload(first, new Float32Array(70_000).map((_, i) => i));
    const far = { ...first, handle: (be.alloc(200 * MIB), be.alloc(4 * 70_000)) };
    be.scale(far, first, 2);
    be.add(first, first, far);
    const got = new Float32Array(70_000);
    await be.download(first, got);
    expect(got).toEqual(new Float32Array(70_000).map((_, i) => 3 * i));
    expect(be.memory().peak).toBeGreaterThan(200 * MIB);
    be.close();
  });

  test("reaches over 2 GiB, where an address is negative as an i32", async () => {
    const be = await createWasmBackend({ threads: 2 });
    be.alloc(2.2 * 1024 * MIB);
    const n = 40_000, high = { handle: be.alloc(4 * n), byteOffset: 0, dtype: "f32" as const, shape: [200, 200] };
    const values = new Float32Array(n).map((_, i) => (i % 7) - 3),
      got = new Float32Array(n),
      product = { ...high, handle: be.alloc(4 * n) };
    be.upload(high, values);
    be.matmul(product, high, high, null, { transB: true });
    await be.download(product, got);
    let want = 0;
    for (let k = 0; k < 200; k++) want += values[3 * 200 + k] * values[5 * 200 + k];
    expect(got[3 * 200 + 5]).toBe(want);
    be.close();
  });

  test("is refused over its limit with a MemoryError, and transfers of the wrong size with a ShapeError", async () => {
    const be = await createWasmBackend({ threads: 1, maxBytes: 16 * MIB });
    expect(() => be.alloc(32 * MIB)).toThrow(MemoryError);
    expect(be.memory().limit).toBeLessThan(16 * MIB);
    const t = { handle: be.alloc(16), byteOffset: 0, dtype: "f32" as const, shape: [4] };
    expect(() => be.upload(t, new Float32Array(3))).toThrow("the array has 12 bytes, the tensor 16");
    await expect(be.download(t, new Float32Array(5))).rejects.toThrow(ShapeError);
    be.close();
  });

  test("options outside their range are refused by name", async () => {
    await expect(createWasmBackend({ threads: 0 })).rejects.toThrow("Cannot start 0 threads");
    await expect(createWasmBackend({ maxBytes: 1000 })).rejects.toThrow("Cannot limit the memory to 1000 bytes");
    await expect(createWasmBackend({ maxBytes: 2 ** 33 })).rejects.toThrow("must be");
  });
});
