// How a kernel gets its work. The main thread writes a job's arguments into the first 4 KiB of the shared memory and
// every thread calls the kernel with the units it takes: unit u writes what no other unit writes, so the result does not
// depend on who took it. Byte offsets here and in ../pool.ts (CONTROL) are the same.

const ARGS: usize = 512;
const FLOATS: usize = 768;
const FAIL: usize = 192;

/** Integer argument k. */
// @ts-ignore: decorator
@inline
export function int(k: usize): i32 {
  return load<i32>(ARGS + (k << 2));
}

/** Address argument k. */
// @ts-ignore: decorator
@inline
export function ptr(k: usize): usize {
  return load<u32>(ARGS + (k << 2));
}

/** Float argument k. */
// @ts-ignore: decorator
@inline
export function float(k: usize): f32 {
  return load<f32>(FLOATS + (k << 2));
}

/** Bytes of n 4-byte elements. */
// @ts-ignore: decorator
@inline
export function words(n: i32): usize {
  return <usize>n << 2;
}

/** Reports a value outside its range: the first report is kept and the main thread throws it as a BackendError. */
export function fail(code: i32, row: i32, value: i32): void {
  if (atomic.cmpxchg<i32>(FAIL, 0, code) === 0) {
    store<i32>(FAIL, row, 4);
    store<i32>(FAIL, value, 8);
  }
}

/** Codes of `fail`; ../pool.ts has the sentences. */
export const BAD_ID: i32 = 1;
export const BAD_TARGET: i32 = 2;
export const BAD_CACHE_ROW: i32 = 3;
export const BAD_SEQUENCES: i32 = 4;

/** First byte after the static data. */
export function heapBase(): usize {
  return __heap_base;
}
