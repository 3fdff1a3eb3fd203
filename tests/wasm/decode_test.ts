/**
 * Weights where they lie: every type decodes to ggml's last bit (../shared/golden-quants, made by llama.cpp's own code)
 * and, for random bits, to what src/formats decodes; and the kernels that never decode give the same products.
 */
import { existsSync, readFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { type DType, DTYPES, isQuant } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { dequantize } from "../../src/formats/dequantize.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { randomAs } from "../ops/values.ts";

const GOLDEN = new URL("../../../shared/golden-quants/", import.meta.url);
const BACKENDS = {
  fma: await createWasmBackend({ threads: 2, kernels: "fma" }),
  mul: await createWasmBackend({ threads: 2, kernels: "mul" }),
};
afterAll(() => Object.values(BACKENDS).forEach((be) => be.close()));

const TYPES = (Object.keys(DTYPES) as DType[]).filter((t) => BACKENDS.fma.supports(t));

function place(be: typeof BACKENDS.fma, dtype: DType, bytes: Uint8Array, ...shape: number[]): Tensor {
  const t = { handle: be.alloc(bytes.length), byteOffset: 0, dtype, shape };
  be.upload(t, bytes);
  return t;
}

/** The tensor's values through `copy`. */
async function decoded(be: typeof BACKENDS.fma, dtype: DType, bytes: Uint8Array, count: number): Promise<Float32Array> {
  const x = place(be, dtype, bytes, count), y = place(be, "f32", new Uint8Array(4 * count), count);
  be.copy(y, x);
  const out = new Float32Array(count);
  await be.download(y, out);
  [x, y].forEach((t) => be.free(t.handle));
  return out;
}

const bits = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);

describe.each(["fma", "mul"] as const)("the %s kernels", (kind) => {
  const be = BACKENDS[kind];

  test.skipIf(!existsSync(GOLDEN))(
    "decode ggml's golden files to the last bit (needs ../shared/golden-quants)",
    async () => {
      const index = JSON.parse(readFileSync(new URL("index.json", GOLDEN), "utf8"));
      expect(index.types.length).toBeGreaterThan(13);
      for (const { name } of index.types as { name: string }[]) {
        const bytes = new Uint8Array(readFileSync(new URL(`${name}.bin`, GOLDEN)));
        const want = new Float32Array(new Uint8Array(readFileSync(new URL(`${name}.f32`, GOLDEN))).buffer);
        const got = await decoded(be, name.toLowerCase() as DType, bytes, index.rows * index.cols);
        expect(bits(got), name).toEqual(bits(want));
      }
    },
  );

  test("decode random blocks as src/formats does, to the last bit", async () => {
    for (const t of TYPES) {
      const n = 64 * 1024 + (isQuant(t) ? 256 : 7), { bytes } = randomAs(t, n, 5, 1);
      expect(bits(await decoded(be, t, bytes, n)), t).toEqual(bits(dequantize(t, bytes)));
    }
  });

  test("decode every half, every bfloat16 and every fp8", async () => {
    const halves = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
    for (const t of ["f16", "bf16"] as const) {
      const got = await decoded(be, t, halves, 65536), want = dequantize(t, halves);
      got.forEach((x, i) => {
        if (!Object.is(x, want[i])) throw new Error(`${t} ${i.toString(16)} is ${x} and must be ${want[i]}`);
      });
    }
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    expect(await decoded(be, "fp8_e4m3", all, 256)).toEqual(dequantize("fp8_e4m3", all));
  });

  test("write halves and bfloat16 rounded to nearest, ties to even, and read them back", async () => {
    const r = new Random(3),
      special = [0, -0, 65504, 65519.9, 65520, -1e30, 2 ** -24, 2 ** -25, 2 ** -25 * 1.0001, 2 ** -14];
    const ties = Array.from({ length: 2000 }, () => (1024 + r.below(1024) + 0.5) * 2 ** (r.below(24) - 20));
    const tiny = Array.from({ length: 2000 }, () => (r.below(1024) + 0.5 * r.below(3)) * 2 ** -24);
    const values = Float32Array.from([...special, ...ties, ...tiny, Infinity, -Infinity]), n = values.length;
    const x = place(be, "f32", new Uint8Array(values.buffer), n), y = place(be, "f16", new Uint8Array(2 * n), n);
    be.copy(y, x);
    const got = new Uint16Array(n);
    await be.download(y, got);
    // each must be nearer than both its neighbours, or as near and even
    const back = dequantize("f16", new Uint8Array(got.buffer));
    values.forEach((v, i) => {
      const gap = (b: number): number => Math.abs(dequantize("f16", new Uint8Array(Uint16Array.of(b).buffer))[0] - v);
      if (!Number.isFinite(back[i])) return expect(Math.abs(v)).toBeGreaterThanOrEqual(65520);
      for (const other of [got[i] - 1, got[i] + 1]) {
        const d = gap(other & 0xffff);
        if (d < gap(got[i]) || (d === gap(got[i]) && got[i] & 1 && v !== 0)) throw new Error(`${v} became ${back[i]}`);
      }
    });
  });

  test("multiply blocks as they lie: one, three and nine rows give what decoded weights give", async () => {
    for (const t of TYPES) {
      const O = 45, I = 512, w = place(be, t, randomAs(t, O * I, 9, 1).bytes, O, I);
      const dense = place(be, "f32", new Uint8Array(4 * O * I), O, I);
      be.copy(dense, w);
      for (const M of [1, 3, 9]) {
        const x = place(be, "f32", randomAs("f32", M * I, 4, 1).bytes, M, I), out: Float32Array[] = [];
        for (const weight of [w, dense]) {
          const y = place(be, "f32", new Uint8Array(4 * M * O), M, O);
          be.matmul(y, x, weight, null, { transB: true });
          const got = new Float32Array(M * O);
          await be.download(y, got);
          out.push(got);
        }
        const [got, want] = out, norm = Math.hypot(...want), error = Math.hypot(...got.map((v, i) => v - want[i]));
        // both sum 512 products in f32, in different orders
        expect(error / norm, `${t}, ${M} rows`).toBeLessThan(1e-6);
      }
    }
  });
});
