// The product of matmul.ts with its tile in another module, over panels held in structs (../panel_kernel.ts): blocks of op(b) are
// decoded and handed over, six rows of A are read where they lie. The same bits as the other tiles'. Bound by arithmetic: 2·M·N·K.
import { bytesOf, decode } from "./decode";
import { float, int, ptr, words } from "./job";
import { scatter, startWithBias } from "./matmul";
import { CHUNK, fillPlain, fillTransposed, multiplyPanels, NR, takeTiles } from "./micro";
import { transpose4 } from "./pack";

/** Rows of the tile in ../panel_kernel.ts. */
const ROWS: i32 = 6;
/** Bytes of a thread's scratch for decoded rows: CHUNK rows of 64 panels, or 8 rows of a pass. Gathered rows of A and a tile follow. */
const STRIP: usize = 65536, TILE: usize = STRIP + 1024;

/** Arguments as matmul's, and 25: whether A is transposed. */
export function matmulHeld(u: i32, scratch: usize): void {
  const N = int(12), K = int(13), KC = int(14), NB = int(15), across = int(17);
  const n0 = u % across * NB, n1 = min(N, n0 + NB), m0 = u / across * int(16), m1 = min(int(11), m0 + int(16));
  const panels = (n1 - n0 + NR - 1) / NR;
  let add = int(18) !== 0;
  if (ptr(10)) {
    startWithBias(m0, m1, n0, n1, add);
    add = true;
  }
  for (let k0 = 0; k0 < K; k0 += KC) {
    const kc = min(KC, K - k0);
    if (int(9)) holdTransposed(k0, kc, n0, n1, panels, scratch);
    else holdPlain(k0, kc, n0, n1, panels, scratch);
    for (let m = m0; m < m1; m += ROWS) {
      sweepRows(m, min(ROWS, m1 - m), k0, kc, panels, scratch + STRIP);
      takeRow(m, m1, n0, n1, scratch + TILE, add);
    }
    add = true;
  }
}

/** b is [K,N]: chunks of its rows. What lies beyond K or N is zero. */
function holdPlain(k0: i32, kc: i32, n0: i32, n1: i32, panels: i32, strip: usize): void {
  const type = int(7), skip = bytesOf(type, n0), nc = n1 - n0, ld = words(panels * NR);
  for (let k = 0, at = 0; k < kc; k += CHUNK, at += panels) {
    const have = min(CHUNK, kc - k), from = ptr(6) + <usize>(k0 + k) * ptr(8) + skip;
    if (type === 0 && have === CHUNK && nc % NR === 0) {
      fillPlain(from, ptr(8), panels, at);
      continue;
    }
    for (let r = 0; r < CHUNK; r++) {
      const to = strip + <usize>r * ld, s = from + <usize>r * ptr(8);
      const got = r < have ? nc : 0;
      if (got && type === 0) memory.copy(to, s, words(nc));
      else if (got) decode(type, s, to, nc);
      if (ld > words(got)) memory.fill(to + words(got), 0, ld - words(got));
    }
    fillPlain(strip, ld, panels, at);
  }
}

/** b is [N,K]: eight of its rows a panel. What lies beyond K or N is zero. */
function holdTransposed(k0: i32, kc: i32, n0: i32, n1: i32, panels: i32, strip: usize): void {
  const type = int(7), skip = bytesOf(type, k0), chunks = (kc + CHUNK - 1) / CHUNK, ld = words(chunks * CHUNK);
  for (let p = 0; p < panels; p++) {
    const n = n0 + p * NR, rows = min(NR, n1 - n), from = ptr(6) + <usize>n * ptr(8) + skip;
    if (type === 0 && rows === NR && ld === words(kc)) {
      fillTransposed(from, ptr(8), chunks, p, panels);
      continue;
    }
    for (let r = 0; r < NR; r++) {
      const to = strip + <usize>r * ld, s = from + <usize>r * ptr(8);
      const got = r < rows ? kc : 0;
      if (got && type === 0) memory.copy(to, s, words(kc));
      else if (got) decode(type, s, to, kc);
      if (ld > words(got)) memory.fill(to + words(got), 0, ld - words(got));
    }
    fillTransposed(strip, ld, chunks, p, panels);
  }
}

/** All tiles of some rows: whole chunks of a row where it lies, else six rows of a chunk are gathered first. */
function sweepRows(m: i32, rows: i32, k0: i32, kc: i32, panels: i32, gathered: usize): void {
  const lda = words(int(4)), turned = int(25) !== 0, whole = turned ? 0 : kc / CHUNK;
  if (whole > 0) multiplyPanels(ptr(3) + <usize>m * lda + words(k0), lda, rows - 1, 0, whole, panels, false);
  for (let c = whole; c * CHUNK < kc; c++) {
    const k = k0 + c * CHUNK, have = min(CHUNK, kc - c * CHUNK);
    if (turned) gatherColumns(ptr(3) + <usize>k * lda + words(m), lda, rows, have, gathered);
    else {
      for (let r = 0; r < rows; r++) {
        memory.copy(gathered + words(r * CHUNK), ptr(3) + <usize>(m + r) * lda + words(k), words(have));
      }
    }
    // What follows meets zeros of op(b), and must be finite for that.
    if (have < CHUNK) {
      for (let r = 0; r < rows; r++) memory.fill(gathered + words(r * CHUNK + have), 0, words(CHUNK - have));
    }
    multiplyPanels(gathered, words(CHUNK), rows - 1, c, 1, panels, have <= CHUNK / 2);
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
function takeRow(m: i32, m1: i32, n0: i32, n1: i32, tmp: usize, add: bool): void {
  const ldc = words(int(1)), ldcT = words(int(2)), alpha = float(0);
  const whole = m + ROWS <= m1 && ldcT === 4 ? (n1 - n0) / NR : 0;
  if (whole > 0) takeTiles(0, whole, ptr(0) + <usize>m * ldc + words(n0), ldc, alpha, add);
  for (let n = n0 + whole * NR, p = whole; n < n1; n += NR, p++) {
    const c = ptr(0) + <usize>m * ldc + <usize>n * ldcT;
    takeTiles(p, 1, tmp, words(NR), 1, false);
    scatter(tmp, alpha, c, ldc, ldcT, min(ROWS, m1 - m), min(NR, n1 - n), add);
  }
}
