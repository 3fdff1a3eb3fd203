/**
 * What the real machine may do otherwise than the simulator, for `doctor --metal`: f16 numbers too small to be normal, which
 * a GPU may flush to zero (block scales can be such), and files as device memory.
 * @module
 */
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend } from "../src/core/backend.ts";
import type { Tensor } from "../src/core/tensor.ts";

/** A reading and whether it is good. */
export interface Reading {
  readonly line: string;
  readonly good: boolean;
}

async function asF32(be: Backend, x: Tensor): Promise<Float32Array> {
  const got = new Float32Array(x.shape[0]);
  const wide: Tensor = { handle: be.alloc(got.byteLength), byteOffset: 0, dtype: "f32", shape: x.shape };
  be.copy(wide, x);
  await be.download(wide, got);
  be.free(wide.handle);
  return got;
}

/** All 1,023 positive subnormals of f16: code i is i times 2^-24. */
export async function readSubnormals(be: Backend): Promise<Reading> {
  const codes = Uint16Array.from({ length: 1023 }, (_, i) => i + 1);
  const x: Tensor = { handle: be.alloc(codes.byteLength), byteOffset: 0, dtype: "f16", shape: [codes.length] };
  be.upload(x, codes);
  const got = await asF32(be, x), wrong = got.filter((v, i) => v !== (i + 1) * 2 ** -24).length;
  be.free(x.handle);
  return {
    line: `f16 subnormals: ${wrong === 0 ? "kept" : `WRONG, ${wrong} of ${codes.length} are not what they say`}`,
    good: wrong === 0,
  };
}

/** A file's pages read by the GPU where they lie, from an offset that is no page's. */
export async function readFile(be: Backend): Promise<Reading> {
  const folder = mkdtempSync(join(tmpdir(), "unsloth-doctor-")), path = join(folder, "weights");
  try {
    const values = Float32Array.from({ length: 1 << 18 }, (_, i) => i), first = 1028, count = 200_000;
    writeFileSync(path, values);
    const fd = openSync(path, "r"), { dev, ino, size, mtimeMs } = fstatSync(fd);
    closeSync(fd);
    const at = be.map?.({ path, dev, ino, size, mtimeMs }, first * 4, count * 4) ?? null;
    if (at === null) return { line: "files as memory: not taken; weights are copied at load", good: true };
    const x: Tensor = { ...at, dtype: "f32", shape: [count] },
      twice = { ...x, handle: be.alloc(count * 4), byteOffset: 0 };
    be.add(twice, x, x);
    const got = new Float32Array(count);
    await be.download(twice, got);
    be.free(at.handle), be.free(twice.handle);
    const wrong = got.filter((v, i) => v !== 2 * values[first + i]).length;
    return {
      line: `files as memory: ${wrong === 0 ? "read as they are" : `WRONG, ${wrong} elements`}`,
      good: wrong === 0,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
