// The product of matmul.ts with its tile in another module, over panels held in structs (held.ts). The same bits as the other
// tiles'. Bound by arithmetic: 2·M·N·K.
import { bytesOf } from "./decode";
import { chunksOf, holdPlain, holdTransposed, isShort, panelsOf } from "./held";
import { float, int, ptr, words } from "./job";
import { scatter, startWithBias } from "./matmul";
import { CHUNK, multiplyPanels, NR, ROWS, takeTiles } from "./micro";
import { transpose4 } from "./pack";

/** Bytes of a thread's scratch for decoded rows: CHUNK rows of 64 panels, or 8 rows of a pass. Gathered rows of A and a tile follow. */
const STRIP: usize = 65536, TILE: usize = STRIP + 1024;

/** Arguments as matmul's, and 25: whether A is transposed. */
export function matmulHeld(u: i32, scratch: usize): void {
  const N = int(12), K = int(13), KC = int(14), NB = int(15), across = int(17), type = int(7), row = ptr(8);
  const n0 = u % across * NB, n1 = min(N, n0 + NB), m0 = u / across * int(16), m1 = min(int(11), m0 + int(16));
  let add = int(18) !== 0;
  if (ptr(10)) {
    startWithBias(m0, m1, n0, n1, add);
    add = true;
  }
  for (let k0 = 0; k0 < K; k0 += KC) {
    const kc = min(KC, K - k0);
    if (int(9)) holdTransposed(ptr(6) + <usize>n0 * row + bytesOf(type, k0), type, row, kc, n1 - n0, 0, scratch);
    else holdPlain(ptr(6) + <usize>k0 * row + bytesOf(type, n0), type, row, kc, n1 - n0, 0, scratch);
    for (let m = m0; m < m1; m += ROWS) {
      sweepRows(m, min(ROWS, m1 - m), k0, kc, panelsOf(n1 - n0), scratch + STRIP);
      takeRow(m, min(ROWS, m1 - m), n0, n1, scratch + TILE, add);
    }
    add = true;
  }
}

/** All tiles of some rows: whole chunks of a row where it lies, else six rows of a chunk are gathered first. */
function sweepRows(m: i32, rows: i32, k0: i32, kc: i32, panels: i32, gathered: usize): void {
  const lda = words(int(4)), turned = int(25) !== 0, whole = turned ? 0 : kc / CHUNK;
  const a = ptr(3) + <usize>m * lda + words(k0);
  if (whole > 0) multiplyPanels(a, lda, rows - 1, 0, panels, whole, 0, panels, true, false);
  for (let c = whole; c < chunksOf(kc); c++) {
    const k = k0 + c * CHUNK, have = min(CHUNK, kc - c * CHUNK);
    if (turned) gatherColumns(ptr(3) + <usize>k * lda + words(m), lda, rows, have, gathered);
    else {
      for (let r = 0; r < rows; r++) {
        memory.copy(gathered + words(r * CHUNK), ptr(3) + <usize>(m + r) * lda + words(k), words(have));
      }
    }
    if (have < CHUNK) {
      // It meets zeros of op(b), and must be finite for that.
      for (let r = 0; r < rows; r++) memory.fill(gathered + words(r * CHUNK + have), 0, words(CHUNK - have));
    }
    multiplyPanels(gathered, words(CHUNK), rows - 1, c * panels, panels, 1, 0, panels, c === 0, isShort(have));
  }
}

/** dst[r, k] = a[k, r]: rows of CHUNK. */
function gatherColumns(a: usize, lda: usize, rows: i32, have: i32, dst: usize): void {
  let k = 0;
  if (rows === ROWS) {
    for (; k + 4 <= have; k += 4, a += 4 * lda) {
      const to = dst + words(k);
      transpose4(a, a + lda, a + 2 * lda, a + 3 * lda, to, words(CHUNK));
      transpose4(a + 8, a + lda + 8, a + 2 * lda + 8, a + 3 * lda + 8, to + 2 * words(CHUNK), words(CHUNK));
    }
  }
  for (; k < have; k++, a += lda) {
    for (let r = 0; r < rows; r++) store<f32>(dst + words(r * CHUNK + k), load<f32>(a + words(r)));
  }
}

/** c's rows from m on take their tiles. */
function takeRow(m: i32, rows: i32, n0: i32, n1: i32, tmp: usize, add: bool): void {
  const ldc = words(int(1)), ldcT = words(int(2)), alpha = float(0), whole = ldcT === 4 ? (n1 - n0) / NR : 0;
  if (whole > 0) takeTiles(0, whole, ptr(0) + <usize>m * ldc + words(n0), ldc, rows - 1, alpha, add);
  for (let n = n0 + whole * NR, p = whole; n < n1; n += NR, p++) {
    takeTiles(p, p + 1, tmp, words(NR), rows - 1, 1, false);
    scatter(tmp, alpha, ptr(0) + <usize>m * ldc + <usize>n * ldcT, ldc, ldcT, rows, min(NR, n1 - n), add);
  }
}
