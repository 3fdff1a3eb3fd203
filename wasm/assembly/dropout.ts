// Counter-based dropout and noise: Philox4x32-10 (Salmon et al., SC 2011), counter (element / 4, stream, 0, 0), key = seed;
// the same bits as src/core/philox.ts. Unit u is CHUNK elements.
import { float, int, ptr, words } from "./job";

const CHUNK: i32 = 4096;

let w0: u32 = 0, w1: u32 = 0, w2: u32 = 0, w3: u32 = 0;

/** The four words of a counter, left in w0..w3 (a module's globals belong to one thread). */
// @ts-ignore: decorator

function philox(counter: u32, stream: u32, k0: u32, k1: u32): void {
  let c0 = counter, c1 = stream, c2: u32 = 0, c3: u32 = 0, a = k0, b = k1;
  for (let round = 0; round < 10; round++) {
    const p = <u64> 0xd2511f53 * <u64> c0, q = <u64> 0xcd9e8d57 * <u64> c2;
    c0 = <u32> (q >> 32) ^ c1 ^ a;
    c1 = <u32> q;
    c2 = <u32> (p >> 32) ^ c3 ^ b;
    c3 = <u32> p;
    a += 0x9e3779b9;
    b += 0xbb67ae85;
  }
  w0 = c0;
  w1 = c1;
  w2 = c2;
  w3 = c3;
}

/** Arguments: out, x, seed, stream, threshold, n; 1/(1-p). A word at or over the threshold keeps its element. */
export function dropout(u: i32, _: usize): void {
  const threshold = <u32> int(4), n = int(5), keep = float(0);
  const k0 = load<u32>(ptr(2)), k1 = load<u32>(ptr(2), 4), stream = <u32> int(3);
  const first = u * CHUNK, end = min(n, first + CHUNK);
  for (let i = first; i < end; i += 4) {
    philox(<u32> (i >>> 2), stream, k0, k1);
    one(i, w0 >= threshold, keep);
    if (i + 1 < end) one(i + 1, w1 >= threshold, keep);
    if (i + 2 < end) one(i + 2, w2 >= threshold, keep);
    if (i + 3 < end) one(i + 3, w3 >= threshold, keep);
  }
}

// @ts-ignore: decorator

function one(i: i32, kept: bool, keep: f32): void {
  store<f32>(ptr(0) + words(i), kept ? load<f32>(ptr(1) + words(i)) * keep : 0);
}

/** out = x + magnitude[row]·u, u in (-1, 1). Arguments: out, x, magnitude, seed, stream, n, D. */
export function noise(u: i32, _: usize): void {
  const n = int(5), k0 = load<u32>(ptr(3)), k1 = load<u32>(ptr(3), 4), stream = <u32> int(4);
  const first = u * CHUNK, end = min(n, first + CHUNK);
  for (let i = first; i < end; i += 4) {
    philox(<u32> (i >>> 2), stream, k0, k1);
    shifted(i, w0);
    if (i + 1 < end) shifted(i + 1, w1);
    if (i + 2 < end) shifted(i + 2, w2);
    if (i + 3 < end) shifted(i + 3, w3);
  }
}

// @ts-ignore: decorator

function shifted(i: i32, word: u32): void {
  const size = <f64> load<f32>(ptr(2) + words(i / int(6)));
  const v = (2 * <f64> word + 1) / 4294967296.0 - 1;
  store<f32>(ptr(0) + words(i), <f32> (<f64> load<f32>(ptr(1) + words(i)) + size * v));
}
