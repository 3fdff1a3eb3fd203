/**
 * How attention is cut: blocks of tokens (found by a kernel, since sequence bounds and positions live in device memory),
 * heads that share packed keys, and one query at a time where there are few.
 * @module
 */
import type { AttnOpts, Seqs } from "../src/core/backend.ts";
import { ShapeError } from "../src/core/errors.ts";
import { numel, type Tensor } from "../src/core/tensor.ts";
import { runBackward } from "./attention_bwd.ts";
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

/** dq, dk, dv of packed sequences. `t`: dq, dk, dv, dOut, q, k, v, out, lse. */
export function runAttentionBwd(pool: Pool, at: Address, t: readonly Tensor[], s: Seqs, o: AttnOpts): void {
  const [N, H, d] = t[4].shape, K = t[5].shape[1];
  shareOf(d, H / K);
  const count = blocksOf(pool, "attentionBwd", at, s, N);
  const args = [...t.map(at), pool.panels, count, N, H, K, d, o.window, holds(pool, d)];
  runBackward(pool, args, pool.panels + 16 * count, K, H / K, [o.scale, o.softcap]);
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
