/** The adapter over a real shared library: memory, operations, graphs, and every refusal. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openNative } from "../../ffi/adapter.ts";
import { runtime } from "../../ffi/library.ts";
import type { Backend } from "../../src/core/backend.ts";
import { BackendError, MemoryError, ShapeError } from "../../src/core/errors.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { buildLibrary, hasGcc } from "./build.ts";

/** Runs the garbage collector, in any of the three runtimes. */
function collect(): void {
  const { Bun } = globalThis as { Bun?: { gc(sync: boolean): void } };
  if (Bun) return Bun.gc(true);
  v8.setFlagsFromString("--expose-gc");
  (vm.runInNewContext("gc") as () => void)();
}

function f32(be: Backend, values: number[], ...shape: number[]): Tensor {
  const t: Tensor = { handle: be.alloc(values.length * 4), byteOffset: 0, dtype: "f32", shape };
  be.upload(t, Float32Array.from(values));
  return t;
}
async function read(be: Backend, t: Tensor): Promise<number[]> {
  const out = new Float32Array(t.shape.reduce((a, b) => a * b, 1));
  await be.download(t, out);
  return [...out];
}

const can = hasGcc && runtime() !== "other";

describe.skipIf(!can)("a native library (skipped without gcc or FFI)", () => {
  let path: string, be: Backend;
  beforeAll(async () => {
    path = buildLibrary("library.c");
    be = await openNative({ name: "cuda", path });
  });
  afterAll(() => be?.close());

  test("names its device and what it can read", () => {
    expect(be.device).toBe("test device, 1 GiB, ä");
    expect([be.actDtype, be.supports("q8_0"), be.supports("q4_k")]).toEqual(["f32", true, false]);
  });

  test("does without the extras that it does not have", () => {
    const file = { path: "x", dev: 0, ino: 0, size: 9, mtimeMs: 0 };
    expect([be.map!(file, 0, 9), be.clearCache!(), be.memory().cached]).toEqual([null, 0, undefined]);
    expect(be.resetPeak!()).toBe(undefined);
  });

  test("keeps bytes, also in parts and through views", async () => {
    const t = f32(be, [1, 2, 3, 4, 5, 6], 3, 2);
    const row: Tensor = { ...t, byteOffset: 8, shape: [1, 2] };
    be.upload(row, new Float32Array([0, 30, 40, 0]).subarray(1, 3));
    expect(await read(be, t)).toEqual([1, 2, 30, 40, 5, 6]);
    be.fill(row, -1);
    expect(await read(be, t)).toEqual([1, 2, -1, -1, 5, 6]);
  });

  test("multiplies as its options say, with and without a bias", async () => {
    const a = f32(be, [1, 2, 3, 4, 5, 6], 2, 3), b = f32(be, [1, 0, 2, 0, 1, 3], 2, 3), c = f32(be, [9, 9, 9, 9], 2, 2);
    be.matmul(c, a, b, null, { transB: true });
    expect(await read(be, c)).toEqual([7, 11, 16, 23]);
    be.matmul(c, a, b, f32(be, [100, 200], 2), { transB: true, alpha: 2, beta: 1 });
    expect(await read(be, c)).toEqual([121, 233, 148, 269]);
  });

  test("gives the same answers while the garbage collector runs between calls", async () => {
    const a = f32(be, [1, 2], 2), b = f32(be, [10, 20], 2), out = f32(be, [0, 0], 2);
    for (let i = 0; i < 20; i++) {
      new Array(1000).fill(0).map((_, j) => new Float32Array(j));
      collect();
      be.add(out, a, b);
      collect();
      expect(await read(be, out)).toEqual([11, 22]);
      be.free(f32(be, [i], 1).handle);
    }
  });

  test("replays a captured step with what its memory holds then", async () => {
    const a = f32(be, [1], 1), b = f32(be, [2], 1), out = f32(be, [0], 1);
    const graph = be.capture(() => {
      be.add(out, a, b);
      be.add(out, out, b);
    });
    expect(await read(be, out)).toEqual([0]);
    graph!.launch();
    expect(await read(be, out)).toEqual([5]);
    be.upload(a, Float32Array.of(10));
    graph!.launch();
    expect(await read(be, out)).toEqual([14]);
    graph!.close();
    expect(() => graph!.launch()).toThrow("was freed or never made");
  });

  test("ends the recording when the captured work throws, with the work's own error", async () => {
    expect(() =>
      be.capture(() => {
        throw new Error("the work failed");
      })
    ).toThrow("the work failed");
    const out = f32(be, [0], 1);
    be.add(out, f32(be, [1], 1), f32(be, [2], 1));
    expect(await read(be, out)).toEqual([3]);
  });

  test("counts memory", () => {
    const before = be.memory().active, h = be.alloc(4096);
    expect(be.memory().active - before).toBe(4096);
    be.free(h);
    expect(be.memory()).toMatchObject({ active: before, limit: 2 ** 30 });
    expect(be.memory().peak).toBeGreaterThanOrEqual(before + 4096);
  });

  test("turns a freed handle into an error, also when its slot is used again", async () => {
    const t = f32(be, [1], 1);
    be.free(t.handle);
    const again = f32(be, [2], 1);
    expect(again.handle).not.toBe(t.handle);
    expect(() => be.add(t, again, again)).toThrow(/Cannot run add on cuda: handle \d+ was freed or never made/);
    await expect(read(be, t)).rejects.toThrow(BackendError);
    expect(() => be.free(t.handle)).toThrow(BackendError);
  });

  test("refuses more memory than there is, with both numbers", () => {
    const bytes = 5 * 2 ** 30;
    const error = thrown(() => be.alloc(bytes)) as MemoryError;
    expect(error).toBeInstanceOf(MemoryError);
    expect(error.message).toBe(`Cannot allocate ${bytes} bytes on cuda: 5120 MiB are not left of 1024`);
    expect([error.needed, error.available > 0 && error.available <= 2 ** 30]).toEqual([bytes, true]);
  });

  test("refuses a tensor that leaves its memory", () => {
    const t = f32(be, [1, 2], 2), late: Tensor = { ...t, byteOffset: 4 }, far: Tensor = { ...t, byteOffset: 2 ** 33 };
    for (const bad of [late, far]) expect(() => be.add(t, bad, t)).toThrow(/ends past the 8 bytes/);
  });

  test("checks shapes before the call", () => {
    const t = f32(be, [1, 2], 1, 2);
    expect(() => be.matmul(t, t, t, null, {})).toThrow("Cannot multiply [1,2] by [1,2]: inner sizes are 2 and 1");
    expect(() => be.add(t, t, f32(be, [1], 1))).toThrow(ShapeError);
    expect(() => be.upload(t, new Float32Array(3))).toThrow("the array has 12 bytes, the tensor 8");
  });

  test("says which operation the library lacks", () => {
    const t = f32(be, [1], 1), error = thrown(() => be.scale(t, t, 2)) as BackendError;
    expect(error.message).toBe("Cannot run scale on cuda: us_scale is not in the test library");
    expect([error.op, error.status]).toEqual(["scale", 1]);
  });

  test("returns null from capture where there are no graphs, without running the work", async () => {
    const plain = await openNative({ name: "metal", path: buildLibrary("library.c", "-DNO_GRAPHS") });
    let ran = false;
    expect(plain.capture(() => void (ran = true))).toBeNull();
    expect(ran).toBe(false);
    plain.close();
  });

  test("does not call an operation that was built for other arguments", async () => {
    const old = await openNative({ name: "cuda", path: buildLibrary("library.c", "-DOLD_ADD") });
    const t = f32(old, [1], 1);
    expect(() => old.add(t, t, t)).toThrow("the library was built without it, or for other arguments");
    old.close();
  });

  test.each([
    ["another ABI version", ["-DVERSION=77"], /is ABI 77 and this package needs \d+; build it again/],
    ["no device", ["-DNO_DEVICE"], /Cannot use cuda: no device: the driver is too old \(driver 470, needs 525\)/],
  ])("refuses %s", async (_name, flags, message) => {
    await expect(openNative({ name: "cuda", path: buildLibrary("library.c", ...flags) })).rejects.toThrow(message);
  });

  test("refuses a device that is not there, an activation type without kernels, a missing and a foreign file", async () => {
    await expect(openNative({ name: "cuda", path, device: 3 })).rejects.toThrow("there is no device 3");
    await expect(openNative({ name: "cuda", path, actDtype: "f16" })).rejects.toThrow(/f16 on cuda: it has no kernels/);
    const missing = join(tmpdir(), "no-such-library.so");
    await expect(openNative({ name: "cuda", path: missing })).rejects.toThrow(
      `Cannot open the cuda library ${missing}`,
    );
    await expect(openNative({ name: "cuda", path: new URL(import.meta.url).pathname })).rejects.toThrow(BackendError);
  });

  test("opens and closes many times without keeping memory", async () => {
    for (let i = 0; i < 50; i++) {
      const again = await openNative({ name: "cuda", path });
      again.free(again.alloc(1024));
      again.close();
      again.close();
    }
    expect(be.memory().active).toBeLessThan(1e6);
  });
});

function thrown(work: () => unknown): unknown {
  try {
    work();
  } catch (e) {
    return e;
  }
  throw new Error("nothing was thrown");
}
