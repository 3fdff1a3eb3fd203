/** Tensors from arrays and back, on any backend; the reference keeps f64. */
import type { Backend } from "../../src/core/backend.ts";
import { numel, type Tensor } from "../../src/core/tensor.ts";

/** A tensor with memory of its own, holding `values`. */
export function tensorOf(
  be: Backend,
  dtype: "f32" | "i32",
  values: ArrayLike<number>,
  ...shape: number[]
): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const t: Tensor = { handle: be.alloc(n * 4), byteOffset: 0, dtype, shape };
  be.upload(
    t,
    dtype === "i32"
      ? Int32Array.from(values)
      : be.name === "reference"
      ? Float64Array.from(values)
      : Float32Array.from(values),
  );
  return t;
}

/** The values of an f32 tensor. */
export async function valuesOf(be: Backend, t: Tensor): Promise<Float64Array> {
  if (be.name !== "reference") {
    const out = new Float32Array(numel(t));
    await be.download(t, out);
    return Float64Array.from(out);
  }
  const out = new Float64Array(numel(t));
  await be.download(t, out);
  return out;
}
