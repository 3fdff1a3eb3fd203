// Counter-based dropout: Philox4x32-10 (Salmon et al., SC 2011), counter (element / 4, stream, 0, 0), key = seed; the
// same bits as src/core/philox.ts. Unit u is CHUNK elements.
import { float, int, ptr, words } from "./job";

const CHUNK: i32 = 4096;

/** Arguments: out, x, seed, stream, threshold, n; 1/(1-p). A word at or over the threshold keeps its element. */
export function dropout(u: i32, _: usize): void {
  const threshold = <u32>int(4), n = int(5), keep = float(0);
  const k0 = load<u32>(ptr(2)), k1 = load<u32>(ptr(2), 4), stream = <u32>int(3);
  const first = u * CHUNK, end = min(n, first + CHUNK);
  for (let i = first; i < end; i += 4) {
    let c0 = <u32>(i >>> 2), c1 = stream, c2: u32 = 0, c3: u32 = 0, a = k0, b = k1;
    for (let round = 0; round < 10; round++) {
      const p = <u64>0xd2511f53 * <u64>c0, q = <u64>0xcd9e8d57 * <u64>c2;
      c0 = <u32>(q >> 32) ^ c1 ^ a;
      c1 = <u32>q;
      c2 = <u32>(p >> 32) ^ c3 ^ b;
      c3 = <u32>p;
      a += 0x9e3779b9;
      b += 0xbb67ae85;
    }
    one(i, c0 >= threshold, keep);
    if (i + 1 < end) one(i + 1, c1 >= threshold, keep);
    if (i + 2 < end) one(i + 2, c2 >= threshold, keep);
    if (i + 3 < end) one(i + 3, c3 >= threshold, keep);
  }
}

// @ts-ignore: decorator
@inline
function one(i: i32, kept: bool, keep: f32): void {
  store<f32>(ptr(0) + words(i), kept ? load<f32>(ptr(1) + words(i)) * keep : 0);
}
