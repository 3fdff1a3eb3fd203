/**
 * How attention is cut: blocks of tokens (found by a kernel, since sequence bounds and positions live in device memory),
 * heads that share packed keys, and one query at a time where there are few.
 * @module
 */
import type { AttnOpts, Seqs } from "../src/core/backend.ts";
import { ShapeError } from "../src/core/errors.ts";
import { numel, type Tensor } from "../src/core/tensor.ts";
import { PANELS_BYTES, type Pool, SCRATCH_BYTES } from "./pool.ts";

/** Queries of a block and keys of a tile: assembly/attention.ts. */
const QB = 64, KB = 64;
/** Query heads that meet a packed tile together. */
const SHARE = 4;
/** Tokens a block on average from which tiles pay. */
const MANY = 8;

type Address = (t: Tensor) => number;

/** Query heads of a unit such that everything fits into a thread's scratch. */
function shareOf(d: number, group: number): number {
  const dp = Math.ceil(d / 16) * 16, fixed = 2 * (KB * dp + 16 * 16 + 16 * dp) + QB * KB;
  const left = SCRATCH_BYTES / 4 - fixed, share = Math.min(SHARE, group, Math.floor(left / (QB * (dp + 2))));
  if (share < 1 || 10 * QB * dp > SCRATCH_BYTES / 4) {
    throw new ShapeError(`Cannot attend with heads of ${d}: the wasm backend takes up to 384 features a head`);
  }
  return share;
}

/** Whether blocks are held in structs: heads of whole half chunks, so that rows are read no further than the memory's margin. */
const holds = (pool: Pool, d: number): number => pool.held && d % 16 === 0 ? 1 : 0;

/** Room for `blocks` descriptions of 16 bytes. */
function room(blocks: number): void {
  if (16 * blocks > PANELS_BYTES) {
    throw new ShapeError(`Cannot attend over ${blocks} pieces at once: at most ${PANELS_BYTES / 16} fit`);
  }
}

/** Blocks of packed sequences; their number. */
function blocksOf(pool: Pool, op: string, at: Address, s: Seqs, N: number): number {
  const S = numel(s.cu) - 1;
  room(2 * (Math.ceil(N / QB) + S + 2));
  return pool.call(op, "blocksOfSequences", [pool.panels, at(s.cu), S, N, s.maxLen]);
}

/** out and lse of packed sequences. `t`: out, lse, q, k, v. */
export function runAttention(pool: Pool, at: Address, t: readonly Tensor[], s: Seqs, o: AttnOpts): void {
  const [N, H, d] = t[2].shape, K = t[3].shape[1], share = shareOf(d, H / K);
  const count = blocksOf(pool, "attention", at, s, N), units = count * K * Math.ceil(H / K / share);
  const args = [...t.map(at), pool.panels, count, N, H, K, d, o.window, share, K * d, holds(pool, d)];
  pool.run("attention", "attention", units, args, [o.scale, o.softcap]);
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

/**
 * dq, dk, dv of packed sequences. `t`: dq, dk, dv, dOut, q, k, v, out, lse. A whole sequence and kv head take five products a
 * pair of blocks, seven when they are split to keep more threads busy; the bits are the same. As many kv heads are taken whole
 * as makes the sum of both the shortest.
 */
export function runAttentionBwd(pool: Pool, at: Address, t: readonly Tensor[], s: Seqs, o: AttnOpts): void {
  const op = "attentionBwd", [N, H, d] = t[4].shape, K = t[5].shape[1];
  shareOf(d, H / K);
  const count = blocksOf(pool, op, at, s, N), after = pool.panels + 16 * count;
  const { order, pairs } = sequencesOf(pool.ints(pool.panels, 4 * count)), all = pairs.reduce((a, b) => a + b, 0);
  const args = [...t.map(at), pool.panels, count, N, H, K, d, o.window], floats = [o.scale, o.softcap];
  const cost = (whole: number): number =>
    5 * makespan(pairs, whole, pool.threads) + 7 * all * (K - whole) / pool.threads;
  let whole = K;
  for (let k = K - 1; k >= 0; k--) if (cost(k) < cost(whole)) whole = k;
  if (whole > 0) {
    pool.ints(after, order.length).set(order);
    pool.run(op, "attentionBwdWhole", order.length * whole, [...args, after, whole, holds(pool, d)], floats);
  }
  if (whole === K) return;
  pool.run(op, "attentionBwdQ", count * (K - whole) * (H / K), [...args, whole, holds(pool, d)], floats);
  pool.run(op, "attentionBwdKV", count * (K - whole), [...args, whole, holds(pool, d)], floats);
}

/** out over a cache. `t`: out, q, kc, vc, seq, pos. */
export function runAttentionCached(pool: Pool, at: Address, t: readonly Tensor[], o: AttnOpts): void {
  const op = "attentionCached", [N, H, d] = t[1].shape, [S, L, K] = t[2].shape, floats = [o.scale, o.softcap];
  const share = shareOf(d, H / K), [out, q, kc, vc, seq, pos] = t.map(at);
  room(N);
  const count = pool.call(op, "blocksOfCache", [pool.panels, seq, pos, N, S, L]);
  if (N < MANY * count) {
    const args = [out, q, kc, vc, seq, pos, N, S, L, H, K, d, o.window];
    return pool.run(op, "attentionFew", N * H, args, floats);
  }
  const args = [out, 0, q, kc, vc, pool.panels, count, N, H, K, d, o.window, share, K * d, holds(pool, d)];
  pool.run(op, "attention", count * K * Math.ceil(H / K / share), args, floats);
}
