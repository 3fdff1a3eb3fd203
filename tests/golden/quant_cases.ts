/**
 * A folder laid out as ../shared/golden-quants: input.f32, and for every type its bytes (.bin) and what they decode to
 * (.f32), made by ggml. What each of our encoders and decoders makes of it.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { BlockCodec } from "../../src/core/block_codec.ts";
import { type DType, DTYPES, isQuant } from "../../src/core/dtype.ts";
import { dequantize } from "../../src/formats/dequantize.ts";
import { canQuantize, quantize } from "../../src/formats/quantize.ts";

/** What one encoder made. */
export interface Encoded {
  readonly by: "typescript" | "wasm";
  /** Bytes that differ from ggml's. */
  readonly differing: number;
  /** Rows whose squared error is larger than ggml's. */
  readonly worseRows: number[];
}

/** One type of the folder. */
export interface QuantCase {
  readonly name: string;
  /** Decoded values whose 32 bits differ from ggml's. */
  readonly decodedWrong: number;
  readonly encoded: readonly Encoded[];
}

/** True when nothing is worse than ggml. */
export function passes(c: QuantCase): boolean {
  return c.decodedWrong === 0 && c.encoded.length > 0 && c.encoded.every((e) => e.worseRows.length === 0);
}

function countDifferences(a: Uint8Array | Uint32Array, b: Uint8Array | Uint32Array): number {
  let n = Math.abs(a.length - b.length);
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) n++;
  return n;
}

/** Squared error of row `r`, in f64. */
function rowError(x: Float32Array, y: Float32Array, r: number, cols: number): number {
  let sum = 0;
  for (let i = r * cols; i < (r + 1) * cols; i++) sum += (x[i]! - y[i]!) ** 2;
  return sum;
}

function compare(by: Encoded["by"], dtype: DType, x: Float32Array, cols: number, ours: Uint8Array, theirs: Uint8Array) {
  const [mine, ggmls] = [dequantize(dtype, ours), dequantize(dtype, theirs)];
  const rows = Array.from({ length: x.length / cols }, (_, r) => r);
  const worse = (r: number) => !(rowError(x, mine, r, cols) <= rowError(x, ggmls, r, cols));
  return { by, differing: countDifferences(ours, theirs), worseRows: rows.filter(worse) };
}

/** Runs every type of the folder's index.json. */
export async function runQuantCases(dir: string, codec: BlockCodec): Promise<QuantCase[]> {
  const bytes = (name: string) => new Uint8Array(readFileSync(join(dir, name)));
  const floats = (name: string) => new Float32Array(bytes(name).buffer);
  const { cols, types } = JSON.parse(readFileSync(join(dir, "index.json"), "utf8"));
  const x = floats("input.f32");
  const out: QuantCase[] = [];
  for (const { name } of types as { name: string }[]) {
    const dtype = name.toLowerCase() as DType;
    if (!(dtype in DTYPES)) throw new Error(`${join(dir, "index.json")} names the type '${name}', which is not ours`);
    const theirs = bytes(`${name}.bin`);
    const encoded: Encoded[] = [];
    if (canQuantize(dtype)) encoded.push(compare("typescript", dtype, x, cols, quantize(dtype, x), theirs));
    if (isQuant(dtype)) {
      const blocks = await codec.encode(dtype, cols, x.slice(), null);
      encoded.push(compare("wasm", dtype, x, cols, blocks, theirs));
    }
    const wish = new Uint32Array(floats(`${name}.f32`).buffer);
    const decodedWrong = countDifferences(new Uint32Array(dequantize(dtype, theirs).buffer), wish);
    out.push({ name, decodedWrong, encoded });
  }
  return out;
}
