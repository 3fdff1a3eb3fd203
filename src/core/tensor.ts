/**
 * A tensor is a plain record over a u32 handle: no methods, no autograd, no finalizer. Contiguous, row-major.
 * @module
 */
import { bytesOf, type DType } from "./dtype.ts";
import { ShapeError } from "./errors.ts";

/** Id of device memory in the backend's own table. 0 means "none". Never a pointer. */
export type Handle = number;

/** Contiguous, row-major; an arena tensor is its slab's handle and an offset. A block format runs along the last axis. */
export interface Tensor {
  readonly handle: Handle;
  /** Bytes from the start of the handle's memory. */
  readonly byteOffset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Number of elements. */
export function numel(t: Tensor): number {
  return product(t.shape, t.shape.length);
}

/** Of the first `axes` sizes. A loop: every operation asks several times. */
function product(shape: readonly number[], axes: number): number {
  let n = 1;
  for (let i = 0; i < axes; i++) n *= shape[i];
  return n;
}

/** Bytes of the whole tensor. */
export function byteLength(t: Tensor): number {
  return bytesOf(t.dtype, numel(t));
}

/** The last axis. */
export function cols(t: Tensor): number {
  return t.shape[t.shape.length - 1] ?? 1;
}

/** All axes but the last, multiplied. */
export function rowsOf(t: Tensor): number {
  return product(t.shape, t.shape.length - 1);
}

/**
 * The same memory under another shape.
 * @throws {ShapeError} when the number of elements differs
 */
export function reshape(t: Tensor, ...shape: number[]): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  if (n !== numel(t)) {
    throw new ShapeError(
      `Cannot view [${t.shape}] as [${shape}]: ${numel(t)} and ${n} elements`,
    );
  }
  return { ...t, shape };
}

/**
 * Rows `from`..`to` of the first axis, as a view.
 * @throws {ShapeError} when the range leaves the tensor
 */
export function slice(t: Tensor, from: number, to: number): Tensor {
  const n = t.shape[0] ?? 0;
  if (from < 0 || to > n || from > to) {
    throw new ShapeError(`Cannot take rows ${from} to ${to} of [${t.shape}]`);
  }
  const row = t.shape.slice(1).reduce((a, b) => a * b, 1);
  return {
    ...t,
    byteOffset: t.byteOffset + bytesOf(t.dtype, from * row),
    shape: [to - from, ...t.shape.slice(1)],
  };
}
