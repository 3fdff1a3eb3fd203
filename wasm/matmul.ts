/**
 * How a product is cut: block sizes, which operands are packed, and when a matrix-vector kernel is the better one.
 * The order of summation follows from K alone, so neither threads nor the other sizes change a bit of the result.
 * @module
 */
import type { MatmulOpts } from "../src/core/backend.ts";
import { bytesOf, DTYPES } from "../src/core/dtype.ts";
import { cols, rowsOf, type Tensor } from "../src/core/tensor.ts";
import { PANELS_BYTES, type Pool } from "./pool.ts";

/** Columns of a packed block: NB · KC floats fit the second-level cache beside the rows they meet. */
const NB = 256;
/** Most elements of k in a pass, the same for every tile: rounding between passes makes part of the result. */
const KC = 640;
/** Rows of A up to which the matrix-vector kernel is used, and up to which b's rows are not transposed (V8 only). */
const FEW = 4, SOME = 12;
/** Elements of a row up to which four sums of its runs of 32 fit into a thread's scratch. */
const WIDEST = 262144;
/** Elements of a row decoded at a time in the latter: long, so that the weights stream (8 rows, q8_0: 4.0 -> 3.2 ms). */
const LONG = 2048;
/** Panels of A that one unit packs: assembly/pack.ts. */
const GROUP = 8;
/** Rows of A packed at a time: 2000 · KC floats fit into the space for panels. */
const CHUNK_ROWS = 2000;
/** Columns from which the packing of A, a pass over it, is won back by the faster tile (bench/gemm.ts). */
const WIDE = 128;
/** A unit's rows are a multiple of every tile's: 2, 4 and 5; or of 6 over structs. */
const TILE_ROWS = 20, HELD_ROWS = 6;
/** panel_kernel.ts: k of a struct, structs of op(b), tiles of c. */
const CHUNK = 32, BLOCKS = 720, TILES = 64;
/** From which sizes that tile is the faster one: spreading A is won back by columns, copying B by rows. */
const HELD_LEAST = { M: 13, N: 48, K: 12 };

/** Rows of a transposed A under which it is turned into rows first: a panel of five would be filled badly. */
const THIN = 64;

const ceil = (a: number, b: number): number => Math.ceil(a / b);
const clamp = (x: number, least: number, most: number): number => Math.max(least, Math.min(most, x));
const roundUp = (a: number, b: number): number => ceil(a, b) * b;

/** A matrix as a kernel sees it: address, type, elements of a row, whether it is used transposed. */
interface Operand {
  at: number;
  t: Tensor;
  transposed: boolean;
}

/** Where c lies: floats between its rows and between its columns. */
interface Target {
  at: number;
  ldc: number;
  ldcT: number;
}

/** Runs c = alpha · op(a) · op(b) + beta · c (+ bias). Shapes have been checked, `at` gives addresses. */
export function runMatmul(
  pool: Pool,
  at: (t: Tensor) => number,
  c: Tensor,
  a: Tensor,
  b: Tensor,
  bias: Tensor | null,
  o: MatmulOpts,
): void {
  const M = rowsOf(c), N = cols(c), K = o.transA ? rowsOf(a) : cols(a), ldc = N;
  const left = { at: at(a), t: a, transposed: !!o.transA }, right = { at: at(b), t: b, transposed: !!o.transB };
  const alpha = o.alpha ?? 1, beta = o.beta ?? 0, biasAt = bias ? at(bias) : 0, cAt = at(c);
  if (o.transB && !o.transA && M <= (pool.panelRows > 2 ? SOME : FEW) && K <= WIDEST) {
    const tiles = M > FEW, { block, code } = DTYPES[b.dtype], row = bytesOf(b.dtype, cols(b));
    const kc = passLength(K, block, block > 1 ? LONG : KC), panels = ceil(M, 8) * (8 * kc + 16);
    const rows = tiles
      ? Math.min(128, roundUp(ceil(N, 2 * pool.threads), 4))
      : clamp(ceil(32768, Math.max(1, K)), 4, 64);
    const args = [
      cAt,
      N,
      1,
      left.at,
      cols(a),
      0,
      right.at,
      code,
      row,
      1,
      biasAt,
      M,
      N,
      K,
      kc,
      rows,
      0,
      1,
      beta,
      panels,
    ];
    return pool.run("matmul", tiles ? "fewRows" : "matvec", ceil(N, rows), args, [alpha]);
  }
  // A thin product of a transposed A: c's transpose is computed, so that the long operand is the one packed in rows.
  if (o.transA && !o.transB && b.dtype === "f32" && N <= 64 && M > N && !bias) {
    const target = { at: cAt, ldc: 1, ldcT: ldc };
    return cut(pool, target, { ...right, transposed: true }, { ...left, transposed: false }, 0, [N, M, K], alpha, beta);
  }
  cut(pool, { at: cAt, ldc, ldcT: 1 }, left, right, biasAt, [M, N, K], alpha, beta);
}

/** Equal passes over K of at most KC elements, each a multiple of the block except the last. */
function passLength(K: number, block: number, most = KC): number {
  const step = Math.max(block, 4), whole = most - most % step;
  return Math.min(whole, roundUp(ceil(K, ceil(K, whole)), step));
}

function cut(
  pool: Pool,
  c: Target,
  given: Operand,
  b: Operand,
  bias: number,
  [M, N, K]: readonly [number, number, number],
  alpha: number,
  beta: number,
): void {
  const { block, code } = DTYPES[b.t.dtype], PR = pool.panelRows, thin = given.transposed && M <= THIN;
  const turns = thin && 4 * M * K <= PANELS_BYTES, lda = turns ? K : cols(given.t);
  if (turns) pool.run("matmul", "transposeRows", ceil(K, 64), [pool.panels, given.at, cols(given.t), M, K]);
  const a = turns ? { at: pool.panels, transposed: false } : given;
  const kc = passLength(K, b.transposed ? block : 1), { M: m, N: n, K: k } = HELD_LEAST;
  if (pool.held && M >= m && N >= n && K >= k) return cutHeld(pool, c, a, lda, b, bias, [M, N, K], alpha, beta, kc);
  const packs = a.transposed || (PR > 2 && N >= WIDE && M >= TILE_ROWS && !turns);
  const rows = packs ? Math.min(M, CHUNK_ROWS) : M;
  const passes = Math.floor(PANELS_BYTES / 4 / (ceil(rows, PR) * (PR * kc + 16)));
  const depth = packs ? Math.max(1, passes) * kc : K;
  const { wide, across, tall } = units(pool.threads, rows, N, b.transposed ? 1 : block);
  const floats = ceil(wide, 16) * (16 * kc + 32), row = bytesOf(b.t.dtype, cols(b.t));
  for (let m0 = 0; m0 < M; m0 += rows) {
    const m1 = Math.min(M, m0 + rows), down = ceil(m1 - m0, tall);
    for (let k0 = 0; k0 < K; k0 += depth) {
      const k1 = Math.min(K, k0 + depth), panels = ceil(m1 - m0, PR);
      if (packs) {
        const args = [pool.panels, a.at, lda, a.transposed ? 1 : 0, m0, m1 - m0, k0, k1, kc];
        pool.run("matmul", "packRows", ceil(panels, GROUP) * ceil(k1 - k0, kc), args);
      }
      const args = [c.at, c.ldc, c.ldcT, a.at, lda, packs ? pool.panels : 0, b.at, code, row, b.transposed ? 1 : 0];
      args.push(bias, M, N, K, kc, wide, tall, across, beta, floats, m0, m1, k0, k1);
      pool.run("matmul", "matmul", across * down, args, [alpha]);
    }
  }
}

/** The product over structs; A is read where it lies. */
function cutHeld(
  pool: Pool,
  c: Target,
  a: { at: number; transposed: boolean },
  lda: number,
  b: Operand,
  bias: number,
  [M, N, K]: readonly [number, number, number],
  alpha: number,
  beta: number,
  kc: number,
): void {
  const { block, code } = DTYPES[b.t.dtype], row = bytesOf(b.t.dtype, cols(b.t));
  const { wide, across, tall } = heldUnits(
    pool.threads,
    M,
    N,
    ceil(kc, CHUNK),
    b.transposed ? 16 : Math.max(16, block),
  );
  const args = [c.at, c.ldc, c.ldcT, a.at, lda, 0, b.at, code, row, b.transposed ? 1 : 0, bias, M, N, K, kc];
  args.push(wide, tall, across, beta, 0, 0, M, 0, K, 0, a.transposed ? 1 : 0);
  pool.run("matmul", "matmulHeld", across * ceil(M, tall), args, [alpha]);
}

/** Cycles on a Xeon: a sweep of a tile over a chunk, spreading six rows of one, filling a struct of decoded weights. */
const SWEEP = 213, SPREAD = 320, FILL = 512;
/** Structs from which on other data costs the second-level cache a few per cent. */
const SNUG = 640, CROWDED = 1.04;

/** Columns and rows of a unit over structs: of all cuts the one whose busiest thread is through first. */
function heldUnits(
  threads: number,
  M: number,
  N: number,
  chunks: number,
  step: number,
): { wide: number; across: number; tall: number } {
  const most = (structs: number): number => {
    const room = 8 * Math.min(TILES, Math.floor(structs / chunks));
    return room - room % step;
  };
  const widest = most(BLOCKS), last = Math.max(ceil(N, most(SNUG)), 2 * threads);
  let best = { wide: 0, across: 0, tall: 0 }, least = Infinity;
  for (let columns = ceil(N, widest); columns <= last; columns++) {
    const wide = Math.min(widest, roundUp(ceil(N, columns), step)), panels = ceil(wide, 8), across = ceil(N, wide);
    for (let down = 1; down === 1 || across * down <= 2 * threads; down++) {
      const tall = roundUp(ceil(M, down), HELD_ROWS), units = across * ceil(M, tall);
      const work = ceil(tall, HELD_ROWS) * (SPREAD + SWEEP * panels) + FILL * panels;
      const cost = ceil(units, threads) * work * (panels * chunks > SNUG ? CROWDED : 1);
      if (cost < least) [best, least] = [{ wide, across, tall }, cost];
    }
  }
  return best;
}

/** Columns and rows of a unit, and units across: enough of them that threads which start late find work. */
function units(
  threads: number,
  rows: number,
  N: number,
  block: number,
): { wide: number; across: number; tall: number } {
  const count = ceil(N, Math.min(NB, Math.max(32, ceil(N, 2 * threads))));
  const wide = roundUp(ceil(N, count), Math.max(16, block)), across = ceil(N, wide);
  const enough = threads === 1 ? 1 : 2 * threads;
  const tall = across >= enough ? rows : Math.min(rows, roundUp(ceil(rows, ceil(enough, across)), TILE_ROWS));
  return { wide, across, tall };
}
