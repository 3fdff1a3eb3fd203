// c = alpha · op(a) · op(b) + beta · c (+ bias), the GotoBLAS way (Goto & van de Geijn 2008): op(b) is packed (weights are
// decoded there) in blocks of KC × NB, a tile of c stays in registers. Unit (i, j) is RB rows by NB columns of c; c may be
// written transposed, which lets the caller exchange the operands. Bound by arithmetic: 2·M·N·K.
import { bytesOf, decode } from "./decode";
import { dotRow, dots, hasMinimum, sumRuns } from "./dot";
import { float, int, ptr, words } from "./job";
import { sum4 } from "./math";
import { madd, MR, NR, PR, tilePanel, tileRows } from "./micro";
import { packPlain, packTransposed, panelBytes } from "./pack";

/** Rows of A that meet one packed block of B before the next rows do: 480 KiB at most of the second-level cache. */
const MC: i32 = 240;

/** Elements of a row that matvec decodes at a time; a multiple of every block. */
const STRIP: i32 = 1024;

// Arguments: c, ldc, ldcT, a, lda, packed a or 0, b, b's type, bytes of b's row, transB, bias, M, N, K, KC, NB, RB, column
// units, beta, floats of scratch before the strip, m0, m1, k0, k1; alpha. ldc and ldcT are floats between rows and columns
// of c: one of them is 1. Rows m0..m1 and k0..k1 are the chunk of this launch.

/** Rows of a packed panel of A. */
export function panelRows(): i32 {
  return PR;
}

/** c = alpha · tile (+ c) for the part of a tile that lies inside c, at any strides, rounded as the micro-kernels do. */
export function scatter(tile: usize, alpha: f32, c: usize, ldc: usize, ldcT: usize, rows: i32, cols: i32, add: bool): void {
  const f = f32x4.splat(alpha);
  for (let r = 0; r < rows; r++) {
    for (let q = 0; q < cols; q++) {
      const to = c + <usize>r * ldc + <usize>q * ldcT, x = v128.load_splat<f32>(tile + words(r * NR + q));
      v128.store_lane<f32>(to, add ? madd(f, x, v128.load_splat<f32>(to)) : f32x4.mul(f, x), 0);
    }
  }
}

/** c = bias in the unit's rectangle, so that the first pass may add. */
export function startWithBias(m0: i32, m1: i32, n0: i32, n1: i32, beta: bool): void {
  const c = ptr(0), ldc = int(1), ldcT = int(2), bias = ptr(10);
  for (let m = m0; m < m1; m++) {
    for (let n = n0; n < n1; n++) {
      const to = c + words(m * ldc + n * ldcT), x = load<f32>(bias + words(n));
      store<f32>(to, beta ? load<f32>(to) + x : x);
    }
  }
}

export function matmul(u: i32, scratch: usize): void {
  const N = int(12), KC = int(14), NB = int(15), RB = int(16), across = int(17), end = int(21), k1 = int(23);
  const n0 = u % across * NB, n1 = min(N, n0 + NB), m0 = int(20) + u / across * RB, m1 = min(end, m0 + RB);
  let add = int(18) !== 0 || int(22) > 0;
  if (ptr(10) && int(22) === 0) {
    startWithBias(m0, m1, n0, n1, add);
    add = true;
  }
  const strip = scratch + words(int(19));
  let panels = ptr(5);
  for (let k0 = int(22); k0 < k1; k0 += KC) {
    const kc = min(KC, k1 - k0);
    if (int(9)) packTransposed(ptr(6), int(7), ptr(8), k0, kc, n0, n1 - n0, scratch, strip);
    else packPlain(ptr(6), int(7), ptr(8), k0, kc, n0, n1 - n0, scratch, strip);
    for (let m = m0; m < m1; m += MC) multiply(scratch, panels, strip, m, min(m1, m + MC), n0, n1, k0, kc, add);
    if (panels) panels += <usize>((end - int(20) + PR - 1) / PR) * panelBytes(PR, KC);
    add = true;
  }
}

/** All tiles of rows m0..m1 and columns n0..n1, over one block of k. `panels` is this pass's packed A or 0. */
function multiply(pb: usize, panels: usize, tmp: usize, m0: i32, m1: i32, n0: i32, n1: i32, k0: i32, kc: i32, add: bool): void {
  const ldc = words(int(1)), ldcT = words(int(2)), lda = words(int(4)), alpha = float(0), KC = int(14);
  const tall = panels ? PR : MR;
  for (let n = n0; n < n1; n += NR, pb += panelBytes(NR, kc)) {
    for (let m = m0; m < m1; m += tall) {
      const whole = m + tall <= m1 && n + NR <= n1 && ldcT === 4;
      const c = ptr(0) + <usize>m * ldc + <usize>n * ldcT;
      const to = whole ? c : tmp, ld = whole ? ldc : words(NR), f: f32 = whole ? alpha : 1;
      if (panels) {
        const pa = panels + <usize>((m - int(20)) / PR) * panelBytes(PR, KC);
        tilePanel(kc, pa, pb, to, ld, f, whole && add);
      } else {
        const a = ptr(3) + <usize>m * lda + words(k0);
        tileRows(kc, a, lda, m1 - 1 - m, pb, to, ld, f, whole && add);
      }
      if (!whole) scatter(tmp, alpha, c, ldc, ldcT, min(tall, m1 - m), min(NR, n1 - n), add);
    }
  }
}

/**
 * One to four rows of a against b's rows: bound by reading b. Unit u is NB rows of b. Common types are multiplied as they
 * lie; of the others a strip of each row is decoded into the first-level cache and used for all rows of a.
 */
export function matvec(u: i32, scratch: usize): void {
  const M = int(11), N = int(12), K = int(13), NB = int(15), end = min(N, (u + 1) * NB), type = int(7);
  const a = ptr(3), lda = words(int(4)), runs = scratch + 64, direct = dots(type);
  if (hasMinimum(type)) { for (let m = 0; m < M; m++) sumRuns(a + <usize>m * lda, K, runs + words((K >> 3) * m)); }
  for (let n = u * NB; n < end; n++) {
    const row = ptr(6) + <usize>n * ptr(8);
    if (direct) {
      for (let m = 0; m < M; m++) {
        const sum = dotRow(type, row, a + <usize>m * lda, K, runs + words((K >> 3) * m));
        store<f32>(scratch + words(m), sum4(sum));
      }
    } else dotStrips(row, type, M, K, a, lda, scratch);
    finishRow(n, M, scratch);
  }
}

/** sums[m] = a[m] · the row, strip by strip. */
function dotStrips(row: usize, type: i32, M: i32, K: i32, a: usize, lda: usize, sums: usize): void {
  const strip = sums + 64;
  memory.fill(sums, 0, words(M));
  for (let k0 = 0; k0 < K; k0 += STRIP) {
    const kc = min(STRIP, K - k0);
    let b = row + bytesOf(type, k0);
    if (type !== 0) {
      decode(type, b, strip, kc);
      b = strip;
    }
    for (let m = 0; m < M; m++) {
      const s = sums + words(m);
      store<f32>(s, load<f32>(s) + dot(a + <usize>m * lda + words(k0), b, kc));
    }
  }
}

/** Column n of c from the sums of its rows. */
function finishRow(n: i32, M: i32, sums: usize): void {
  const bias = ptr(10), alpha = float(0);
  for (let m = 0; m < M; m++) {
    const to = ptr(0) + words(m * int(1) + n);
    let y = alpha * load<f32>(sums + words(m));
    if (bias) y += load<f32>(bias + words(n));
    store<f32>(to, int(18) ? load<f32>(to) + y : y);
  }
}

/**
 * A few rows of a against b's rows, as cᵀ = b · aᵀ: b's rows are decoded four at a time, without the transposition that
 * packing them costs, and a is the packed operand. Unit u is NB rows of b.
 */
export function fewRows(u: i32, scratch: usize): void {
  const M = int(11), K = int(13), KC = int(14), NB = int(15), type = int(7);
  const n0 = u * NB, n1 = min(int(12), n0 + NB), lda = words(int(4));
  const tile = scratch + words(int(19)), strip = tile + words(MR * NR);
  for (let k0 = 0; k0 < K; k0 += KC) {
    const kc = min(KC, K - k0), skip = bytesOf(type, k0);
    packTransposed(ptr(3), 0, lda, k0, kc, 0, M, scratch, 0);
    for (let n = n0; n < n1; n += MR) {
      const rows = min(MR, n1 - n);
      let from = ptr(6) + <usize>n * ptr(8) + skip, ld = ptr(8);
      if (type !== 0) {
        for (let r = 0; r < rows; r++) decode(type, from + <usize>r * ld, strip + words(r * kc), kc);
        from = strip;
        ld = words(kc);
      }
      for (let m = 0, panel = scratch; m < M; m += NR, panel += panelBytes(NR, kc)) {
        tileRows(kc, from, ld, rows - 1, panel, tile, words(NR), float(0), false);
        addTile(tile, n, rows, m, min(NR, M - m), k0 === 0);
      }
    }
  }
}

/** c[m.., n..] = or += the tile's transpose; the first pass adds the bias, and to c only with beta. */
function addTile(tile: usize, n: i32, rows: i32, m: i32, cols: i32, first: bool): void {
  const bias = first ? ptr(10) : 0, keep = !first || int(18) !== 0;
  for (let q = 0; q < cols; q++) {
    const c = ptr(0) + words((m + q) * int(1) + n);
    for (let r = 0; r < rows; r++) {
      let y = load<f32>(tile + words(r * NR + q));
      if (bias) y += load<f32>(bias + words(n + r));
      if (keep) y += load<f32>(c + words(r));
      store<f32>(c + words(r), y);
    }
  }
}

/** Σ a·b over n floats. */
export function dot(a: usize, b: usize, n: i32): f32 {
  let s = f32x4.splat(0), t = f32x4.splat(0), v = f32x4.splat(0), w = f32x4.splat(0), i = 0;
  for (; i + 16 <= n; i += 16, a += 64, b += 64) {
    s = madd(v128.load(a), v128.load(b), s);
    t = madd(v128.load(a, 16), v128.load(b, 16), t);
    v = madd(v128.load(a, 32), v128.load(b, 32), v);
    w = madd(v128.load(a, 48), v128.load(b, 48), w);
  }
  for (; i + 4 <= n; i += 4, a += 16, b += 16) s = madd(v128.load(a), v128.load(b), s);
  let total = sum4(f32x4.add(f32x4.add(s, t), f32x4.add(v, w)));
  for (; i < n; i++, a += 4, b += 4) total += load<f32>(a) * load<f32>(b);
  return total;
}
