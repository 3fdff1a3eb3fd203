/** Random tensors of every type, from a fixed seed: what a case's inputs hold. */
import { type DType, DTYPES, isQuant } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import { decode, encode, toF16 } from "../reference/codec.ts";

/** Where a block keeps its scales (f16) and how big they may be; the other bits may be anything. */
const SCALES: Partial<Record<DType, readonly (readonly [at: number, size: number])[]>> = {
  q4_0: [[0, 0.02]],
  q4_1: [[0, 0.02], [2, -0.1]],
  q5_0: [[0, 0.01]],
  q5_1: [[0, 0.01], [2, -0.1]],
  q8_0: [[0, 0.001]],
  q2_k: [[80, 0.002], [82, 0.002]],
  q3_k: [[108, 0.001]],
  q4_k: [[0, 0.0005], [2, 0.001]],
  q5_k: [[0, 0.0003], [2, 0.001]],
  q6_k: [[208, 0.0002]],
  iq4_nl: [[0, 0.001]],
  iq4_xs: [[0, 0.0001]],
};

/** Bytes of `count` elements of a type, and what they mean in f64. */
export interface Stored {
  readonly bytes: Uint8Array;
  readonly values: Float64Array;
}

/** f64 values as the type stores them: rounded, and as bytes. */
export function storeAs(dtype: DType, values: ArrayLike<number>): Stored {
  if (dtype === "f32") {
    const f = Float32Array.from(values);
    return { bytes: new Uint8Array(f.buffer), values: Float64Array.from(f) };
  }
  const bytes = new Uint8Array(values.length * DTYPES[dtype].bytes);
  encode(dtype, values, bytes);
  return { bytes, values: decode(dtype, bytes, values.length) };
}

/** `count` normal numbers times `size`, as the type stores them; random blocks with sane scales for block formats. */
export function randomAs(dtype: DType, count: number, seed: number, size = 1): Stored {
  const random = new Random(seed);
  if (!isQuant(dtype)) return storeAs(dtype, Float64Array.from({ length: count }, () => size * random.normal()));
  const { block, bytes: width } = DTYPES[dtype], bytes = new Uint8Array(count / block * width);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += width) {
    for (const [offset, scale] of SCALES[dtype] ?? []) {
      view.setUint16(at + offset, toF16(scale * (0.5 + random.uniform())), true);
    }
    if (dtype === "nf4") view.setFloat32(at + 32, 0.1 * (0.5 + random.uniform()), true);
  }
  return { bytes, values: decode(dtype, bytes, count) };
}
