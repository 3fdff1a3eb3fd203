/**
 * How attention's backward is cut (assembly/attention_bwd_kernels.ts): which kv heads are taken with whole sequences a unit, and
 * in which rounds the others are, whose ds wait in the space for panels between the two kernels of a round.
 * @module
 */
import { PANELS_BYTES, type Pool } from "./pool.ts";

/** Bytes of ds of a pair of blocks of 64. */
const TILE = 4 * 64 * 64;
/** Time of a pair of blocks, of a whole sequence and of one that is split: there queries are packed for every pair. */
const WHOLE = 5, SPLIT = 5.5;

/** Blocks of queries [from, to) of some kv heads and of some query heads of each group. */
export interface Round {
  readonly kv: number;
  readonly kvs: number;
  readonly g: number;
  readonly gs: number;
  readonly from: number;
  readonly to: number;
}

/** First block of each sequence, the longest first, and how many pairs of blocks each has. */
function sequencesOf(blocks: Int32Array): { order: number[]; pairs: number[] } {
  const first: number[] = [], length = new Map<number, number>();
  for (let b = 0, start = 0; 4 * b < blocks.length; b++) {
    if (b === 0 || blocks[4 * b + 2] !== blocks[4 * b - 2]) first.push(start = b);
    length.set(start, (length.get(start) ?? 0) + 1);
  }
  const size = (b: number): number => length.get(b)!, order = first.sort((a, b) => size(b) - size(a) || a - b);
  return { order, pairs: order.map((b) => size(b) * (size(b) + 1) / 2) };
}

/** Time until all threads are done when each takes the next-longest unit, in pairs of blocks. */
function makespan(pairs: readonly number[], copies: number, threads: number): number {
  const busy = new Array<number>(threads).fill(0);
  for (const cost of pairs) {
    for (let i = 0; i < copies; i++) busy[busy.indexOf(Math.min(...busy))] += cost;
  }
  return Math.max(...busy);
}

/** Pairs that each block of queries takes part in: none outside of all sequences. */
const pairsOf = (blocks: Int32Array): number[] =>
  Array.from({ length: blocks.length / 4 }, (_, b) => blocks[4 * b + 2] < 0 ? 0 : blocks[4 * b + 3] / 64 + 1);

/**
 * Rounds of kv heads from..K: as much at once as `room` pairs allow. Query heads of a group follow one another, and blocks of
 * one, so that sums over both keep their order.
 */
export function roundsOf(pairs: readonly number[], from: number, K: number, G: number, room: number): Round[] {
  const rounds: Round[] = [], all = pairs.reduce((a, b) => a + b, 0), count = pairs.length;
  const whole = all * G <= room, most = Math.floor(room / Math.max(1, whole ? all * G : Math.max(...pairs)));
  for (let kv = from; kv < K;) {
    const kvs = Math.min(most, K - kv);
    if (whole) rounds.push({ kv, kvs, g: 0, gs: G, from: 0, to: count });
    for (let g = 0; !whole && g < G; g++) {
      for (let b = 0, to = 0; b < count; b = to) {
        for (let sum = 0; to < count && (sum += pairs[to]) * kvs <= room;) to++;
        rounds.push({ kv, kvs, g, gs: 1, from: b, to });
      }
    }
    kv += kvs;
  }
  return rounds;
}

/**
 * Runs the kernels. As many kv heads are taken whole as makes the sum of both the shortest; all, when one block's ds find no room.
 * @param args of every kernel; argument 9 is the address of the blocks, 10 their number
 * @param free first address after them
 */
export function runBackward(
  pool: Pool,
  args: readonly number[],
  free: number,
  K: number,
  G: number,
  floats: readonly number[],
): void {
  const op = "attentionBwd", count = args[10], blocks = pool.ints(args[9], 4 * count).slice();
  const { order, pairs } = sequencesOf(blocks), all = pairs.reduce((a, b) => a + b, 0);
  const rows = pairsOf(blocks), ds = Math.ceil((free + 4 * count) / 64) * 64;
  const room = Math.floor((pool.panels + PANELS_BYTES - ds) / TILE);
  const cost = (whole: number): number =>
    WHOLE * makespan(pairs, whole, pool.threads) + SPLIT * all * (K - whole) / pool.threads;
  let whole = K;
  if (Math.max(...rows) <= room) { for (let k = K - 1; k >= 0; k--) if (cost(k) < cost(whole)) whole = k; }
  if (whole > 0) {
    pool.ints(free, order.length).set(order);
    pool.run(op, "attentionBwdWhole", order.length * whole, [...args, free, whole], floats);
  }
  for (const r of whole < K ? roundsOf(rows, whole, K, G, room) : []) {
    const before = pool.ints(free, count);
    let sum = 0;
    for (let b = r.from; b < r.to; sum += rows[b++]) before[b] = sum;
    const its = [...args, r.kv, r.g, r.gs, r.from, r.to, ds, free, sum];
    pool.run(op, "attentionBwdKeys", count * r.kvs, its, floats);
    pool.run(op, "attentionBwdQueries", (r.to - r.from) * r.kvs * r.gs, its, floats);
  }
}
