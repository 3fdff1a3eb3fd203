// Packing of op(B) into panels of NR columns, k-major, zero-padded: weights are decoded here, a strip at a time. Panels
// are a cache line further apart than they are long, because at 16 KiB apart they would all fall on the same cache sets.
import { bytesOf, decode } from "./decode";
import { int, ptr, words } from "./job";
import { NR, PR } from "./micro";

/** Panels of A that one unit packs; ../matmul.ts has the same number. */
const GROUP: i32 = 8;

/** Bytes between panels `width` elements across and kc long. */
// @ts-ignore: decorator
@inline
export function panelBytes(width: i32, kc: i32): usize {
  return words(width * kc + 16);
}

/** Stores the transpose of the 4×4 block whose rows start at s0..s3: four vectors `step` bytes apart. */
// @ts-ignore: decorator
@inline
export function transpose4(s0: usize, s1: usize, s2: usize, s3: usize, dst: usize, step: usize): void {
  const a = v128.load(s0), b = v128.load(s1), c = v128.load(s2), d = v128.load(s3);
  const ab = v128.shuffle<i32>(a, b, 0, 4, 1, 5), cd = v128.shuffle<i32>(c, d, 0, 4, 1, 5);
  const ef = v128.shuffle<i32>(a, b, 2, 6, 3, 7), gh = v128.shuffle<i32>(c, d, 2, 6, 3, 7);
  v128.store(dst, v128.shuffle<i64>(ab, cd, 0, 2));
  v128.store(dst + step, v128.shuffle<i64>(ab, cd, 1, 3));
  v128.store(dst + 2 * step, v128.shuffle<i64>(ef, gh, 0, 2));
  v128.store(dst + 3 * step, v128.shuffle<i64>(ef, gh, 1, 3));
}

/** Rows of a strip that is `width` elements across, kc long: dst[k · width + r] = src[r · ld + k], ld in bytes. */
function transposeStrip(src: usize, ld: usize, rows: i32, kc: i32, dst: usize, width: i32): void {
  const step = words(width);
  let r = 0;
  for (; r + 4 <= rows; r += 4) {
    const s = src + <usize>r * ld;
    let d = dst + words(r), k = 0;
    for (; k + 4 <= kc; k += 4, d += 4 * step) {
      const p = s + words(k);
      transpose4(p, p + ld, p + 2 * ld, p + 3 * ld, d, step);
    }
    for (; k < kc; k++, d += step) {
      const p = s + words(k);
      for (let i = 0; i < 4; i++) store<f32>(d + words(i), load<f32>(p + <usize>i * ld));
    }
  }
  for (; r < rows; r++) {
    const s = src + <usize>r * ld;
    let d = dst + words(r);
    for (let k = 0; k < kc; k++, d += step) store<f32>(d, load<f32>(s + words(k)));
  }
  for (; r < width; r++) {
    let d = dst + words(r);
    for (let k = 0; k < kc; k++, d += step) store<f32>(d, 0);
  }
}

/**
 * Panels of b's rows n0..n0+nc, elements k0..k0+kc of each (b is [N,K], used transposed).
 * `row` is the bytes of a row; `strip` holds NR · kc floats.
 */
export function packTransposed(b: usize, type: i32, row: usize, k0: i32, kc: i32, n0: i32, nc: i32, dst: usize, strip: usize): void {
  const skip = bytesOf(type, k0);
  for (let j = 0; j < nc; j += NR, dst += panelBytes(NR, kc)) {
    const rows = min(NR, nc - j), from = b + <usize>(n0 + j) * row + skip;
    if (type === 0) transposeStrip(from, row, rows, kc, dst, NR);
    else {
      for (let r = 0; r < rows; r++) decode(type, from + <usize>r * row, strip + words(r * kc), kc);
      transposeStrip(strip, words(kc), rows, kc, dst, NR);
    }
  }
}

/** Panels of b's columns n0..n0+nc, rows k0..k0+kc (b is [K,N]); `strip` holds nc floats. */
export function packPlain(b: usize, type: i32, row: usize, k0: i32, kc: i32, n0: i32, nc: i32, dst: usize, strip: usize): void {
  const skip = bytesOf(type, n0), panel = panelBytes(NR, kc);
  const whole = nc - nc % NR;
  for (let k = 0; k < kc; k++, dst += words(NR)) {
    let s = b + <usize>(k0 + k) * row + skip;
    if (type !== 0) {
      decode(type, s, strip, nc);
      s = strip;
    }
    let d = dst, j = 0;
    for (; j < whole; j += NR, d += panel) {
      for (let q = 0; q < NR; q += 4, s += 16) v128.store(d + words(q), v128.load(s));
    }
    if (j < nc) {
      for (let q = 0; q < NR; q++, s += 4) store<f32>(d + words(q), j + q < nc ? load<f32>(s) : 0);
    }
  }
}

/**
 * Panels of PR rows of op(A), for as many passes of KC as the chunk has. Unit (p, g) is GROUP panels of pass p.
 * Arguments: dst, a, lda, transA, m0, rows, k0, k1, KC.
 */
export function packRows(u: i32, _: usize): void {
  const rows = int(5), k1 = int(7), KC = int(8), lda = words(int(2));
  const panels = (rows + PR - 1) / PR, groups = (panels + GROUP - 1) / GROUP;
  const pass = u / groups, g = u % groups * GROUP, k = int(6) + pass * KC, kc = min(KC, k1 - k);
  for (let p = g; p < min(panels, g + GROUP); p++) {
    const dst = ptr(0) + <usize>(pass * panels + p) * panelBytes(PR, KC), have = min(PR, rows - p * PR);
    const m = int(4) + p * PR;
    if (int(3)) gatherColumns(ptr(1) + <usize>k * lda + words(m), lda, have, kc, dst);
    else transposeStrip(ptr(1) + <usize>m * lda + words(k), lda, have, kc, dst, PR);
  }
}

/** dst[m, k] = a[k, m], for a thin transposed A: unit u is 64 k. Arguments: dst, a, lda, M, K. */
export function transposeRows(u: i32, _: usize): void {
  const M = int(3), K = int(4), k0 = u * 64, k1 = min(K, k0 + 64);
  for (let m = 0; m < M; m++) {
    let s = ptr(1) + words(k0 * int(2) + m);
    const d = ptr(0) + words(m * K);
    for (let k = k0; k < k1; k++, s += words(int(2))) store<f32>(d + words(k), load<f32>(s));
  }
}

/** dst[k · PR + r] = src[k · ld + r], zero where r has no row. */
function gatherColumns(src: usize, ld: usize, rows: i32, kc: i32, dst: usize): void {
  for (let k = 0; k < kc; k++, src += ld, dst += words(PR)) {
    if (rows === PR && PR >= 4) {
      v128.store(dst, v128.load(src));
      for (let r = 4; r < PR; r++) store<f32>(dst + words(r), load<f32>(src + words(r)));
    } else { for (let r = 0; r < PR; r++) store<f32>(dst + words(r), r < rows ? load<f32>(src + words(r)) : 0); }
  }
}
