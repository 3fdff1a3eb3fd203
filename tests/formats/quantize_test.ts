import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BlockCodec } from "../../src/core/block_codec.ts";
import { type DType, DTYPES, isQuant, type Quant } from "../../src/core/dtype.ts";
import { BackendError, FormatError, ShapeError } from "../../src/core/errors.ts";
import { NF4_VALUES } from "../../src/formats/block_values.ts";
import { dequantize } from "../../src/formats/dequantize.ts";
import { canQuantize, quantize } from "../../src/formats/quantize.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { hashBinary, hashSources, readOrigin } from "../../wasm/rust/build.ts";
import { passes, runQuantCases } from "../golden/quant_cases.ts";
import { random, shared } from "./files.ts";

let codec: BlockCodec;
beforeAll(async () => {
  codec = await openBlockCodec(2);
});
afterAll(() => codec.close());

/** Roughly normal, one in 500 twenty times as large. */
function weights(n: number, seed: number): Float32Array<ArrayBuffer> {
  const next = random(seed);
  return Float32Array.from({ length: n }, () => {
    const bell = next() + next() + next() + next() - 2;
    return bell * 0.05 * (next() < 0.002 ? 20 : 1);
  });
}

const QUANTS = (Object.keys(DTYPES) as DType[]).filter((d): d is Quant => isQuant(d) && d !== "nf4");

describe("golden-quants", () => {
  const dir = shared("golden-quants");
  test.skipIf(!dir)(
    "every type decodes to ggml's last bit and is encoded to ggml's bytes (needs ../shared)",
    async () => {
      const cases = await runQuantCases(dir!, codec);
      expect(cases.length).toBe(14);
      for (const c of cases) {
        expect(passes(c), c.name).toBe(true);
        for (const e of c.encoded) expect(e.differing, `${c.name} by ${e.by}`).toBe(0);
      }
    },
  );
});

describe("the block codec", () => {
  test("was built from the sources beside it", () => {
    const origin = readOrigin();
    expect(origin.sources).toBe(hashSources());
    expect(origin.binary).toBe(hashBinary());
  });

  test.each(QUANTS.filter(canQuantize))("writes %s as the TypeScript encoder does", async (dtype) => {
    const x = weights(64 * 320, 3);
    expect(await codec.encode(dtype, 320, x.slice(), null)).toEqual(quantize(dtype, x));
  });

  test("each format's error falls with its bits, and importance lowers the error where it lies", async () => {
    const x = weights(32 * 512, 5);
    const importance = Float32Array.from({ length: 512 }, (_, i) => i % 8 ? 0.01 : 4);
    const error = (y: Float32Array, w: (i: number) => number) => {
      let [sum, norm] = [0, 0];
      for (let i = 0; i < x.length; i++) {
        sum += w(i % 512) * (x[i]! - y[i]!) ** 2;
        norm += w(i % 512) * x[i]! ** 2;
      }
      return Math.sqrt(sum / norm);
    };
    for (const dtype of QUANTS) {
      const bits = 8 * DTYPES[dtype].bytes / DTYPES[dtype].block;
      const plain = dequantize(dtype, await codec.encode(dtype, 512, x.slice(), null));
      // A uniform quantiser of b bits over ±4σ has a relative error near 8/√12/2^b; formats below it are broken.
      expect(error(plain, () => 1), dtype).toBeLessThan(4.5 / 2 ** Math.floor(bits - 0.1) + 0.002);
      if (dtype === "q8_0") continue; // ggml ignores importance there
      const led = dequantize(dtype, await codec.encode(dtype, 512, x.slice(), importance));
      expect(error(led, (i) => importance[i]!), dtype).toBeLessThan(error(plain, (i) => importance[i]!));
    }
  });

  test("keeps chunks apart that are in work at once", async () => {
    const inputs = Array.from({ length: 12 }, (_, i) => weights(256 * (i + 1), i));
    const out = await Promise.all(inputs.map((x) => codec.encode("q4_k", 256, x.slice(), null)));
    for (const [i, x] of inputs.entries()) expect(await codec.encode("q4_k", 256, x.slice(), null)).toEqual(out[i]);
  });

  test("encodes rows of zeros, of one value, and of values too small for a half", async () => {
    for (const dtype of QUANTS) {
      for (const value of [0, 1, -3, 1e-30]) {
        const x = new Float32Array(512).fill(value);
        const y = dequantize(dtype, await codec.encode(dtype, 256, x, null));
        const bound = Math.abs(value) * 0.04 + 1e-7; // 6e-8 is the smallest half
        for (const v of y) expect(Math.abs(v - value), `${dtype} of ${value}`).toBeLessThanOrEqual(bound);
      }
    }
  });

  test("refuses rows that are no multiple of the block, and work after closing", async () => {
    expect(() => codec.encode("q4_k", 100, new Float32Array(200), null)).toThrow(ShapeError);
    expect(() => codec.encode("q8_0", 32, new Float32Array(33), null)).toThrow(ShapeError);
    const closed = await openBlockCodec(1);
    const late = closed.encode("q8_0", 32, new Float32Array(32), null);
    closed.close();
    await expect(late).rejects.toThrow(BackendError);
    expect(() => closed.encode("q8_0", 32, new Float32Array(32), null)).toThrow("closed");
  });
});

describe("dequantize()", () => {
  test("decodes nf4: two elements a byte, the first in the high nibble, scaled by the block's largest", () => {
    const block = new Uint8Array(36);
    block[0] = 0x0f;
    block[31] = 0x70;
    new DataView(block.buffer).setFloat32(32, 2, true);
    const y = dequantize("nf4", block);
    expect([y[0], y[1], y[62], y[63]]).toEqual([-2, 2, 0, -2]);
    expect(y[2]).toBe(2 * NF4_VALUES[0]!);
  });

  test("decodes views that are not aligned", () => {
    const bytes = new Uint8Array([0, ...new Uint8Array(Uint16Array.of(0x3c00, 0xc000).buffer)]);
    expect([...dequantize("f16", bytes.subarray(1))]).toEqual([1, -2]);
  });

  test("refuses parts of blocks", () => {
    expect(() => dequantize("q8_0", new Uint8Array(35))).toThrow(FormatError);
    expect(() => dequantize("f16", new Uint8Array(4), new Float32Array(3))).toThrow("the result has 3");
  });
});
