// Backward of packed attention in five products a pair of blocks. Long sequences on few threads: a unit is a whole sequence and
// kv head, and writes dq, dk, dv of it (attentionBwdWhole). Otherwise two kernels in turn: one adds up dk and dv for a block of keys and
// keeps every ds; one adds up dq for a block of queries from them. The order of each sum is the same, so the bits are.
import { KB, padded, QB } from "./attention";
import { copyRows } from "./attention_bwd";
import { after, dqOf, meetKeys, meetQueries, takeQueries, TILE } from "./attention_bwd_pair";
import { int, ptr, words } from "./job";

// Arguments of all: dq, dk, dv, dOut, q, k, v, out, lse, blocks, count, N, H, K, d, window, whether blocks are held in structs;
// scale, softcap. A block is four i32 (attention_blocks.ts).

// @ts-ignore: decorator
@inline
function blockAt(b: i32): usize {
  return ptr(9) + (<usize>b << 4);
}
// @ts-ignore: decorator
@inline
function firstOf(block: usize): i32 {
  return load<i32>(block);
}
// @ts-ignore: decorator
@inline
function tokensOf(block: usize): i32 {
  return load<i32>(block, 4);
}
/** First token of the block's sequence, -1 outside of all. */
// @ts-ignore: decorator
@inline
function sequenceOf(block: usize): i32 {
  return load<i32>(block, 8);
}
/** The block's place in its sequence. */
// @ts-ignore: decorator
@inline
function placeOf(block: usize): i32 {
  return load<i32>(block, 12) / QB;
}

/** Whether a block of queries sees anything of a block of keys before it. */
// @ts-ignore: decorator
@inline
function sees(queries: usize, keys: usize): bool {
  const window = int(15);
  return window === 0 || firstOf(queries) - (firstOf(keys) + tokensOf(keys) - 1) < window;
}

/** Zeroes rows of a tensor whose rows have `heads` heads: those of `n` heads from h on. */
function clearRows(t: usize, from: i32, rows: i32, heads: i32, h: i32, n: i32): void {
  const d = int(14);
  for (let i = from; i < from + rows; i++) memory.fill(t + words((i * heads + h) * d), 0, words(n * d));
}

/** 17: first block of each sequence, the longest first; 18: kv heads taken. */
export function attentionBwdWhole(u: i32, scratch: usize): void {
  const H = int(12), K = int(13), d = int(14), G = H / K, taken = int(18), kv = u % taken, dq = dqOf(scratch), g = after(scratch);
  const first = load<i32>(ptr(17) + words(u / taken)), base = sequenceOf(blockAt(first));
  let end = first;
  for (; end < int(10) && sequenceOf(blockAt(end)) === base; end++) {
    const n0 = firstOf(blockAt(end)), rows = tokensOf(blockAt(end));
    clearRows(ptr(1), n0, rows, K, kv, 1);
    clearRows(ptr(2), n0, rows, K, kv, 1);
    if (base < 0) clearRows(ptr(0), n0, rows, H, kv * G, G);
  }
  if (base < 0) return;
  for (let h = kv * G; h < kv * G + G; h++) {
    for (let b = first; b < end; b++) {
      const queries = blockAt(b), q0 = firstOf(queries), nq = tokensOf(queries);
      takeQueries(q0, nq, h, scratch);
      memory.fill(dq, 0, words(QB * padded(d)));
      for (let j = first; j <= b; j++) {
        const keys = blockAt(j), k0 = firstOf(keys), nk = tokensOf(keys);
        if (!sees(queries, keys)) continue;
        meetKeys(k0, nk, kv, q0, nq, g, scratch);
        meetQueries(k0, nk, kv, q0 - k0, nq, g, dq, scratch);
      }
      copyRows(ptr(0) + words((q0 * H + h) * d), words(H * d), dq, padded(d), nq, d);
    }
  }
}

// Further arguments of the two: 17 first kv head, 18 first query head of a group, 19 query heads; 20, 21: blocks of queries from..to;
// 22: ds, one kv head's after the other's; 23: of each block of queries how many pairs come before; 24: pairs of a query head.

// @ts-ignore: decorator
@inline
function dsOf(kv: i32, g: i32, b: i32, keys: usize): usize {
  const head = (kv - int(17)) * int(19) + g - int(18);
  return ptr(22) + <usize>(head * int(24) + load<i32>(ptr(23) + words(b)) + placeOf(keys)) * TILE;
}

/** dk and dv of a block of keys and one kv head: rows of the tiles are keys, columns queries. */
export function attentionBwdKeys(u: i32, scratch: usize): void {
  const count = int(10), K = int(13), G = int(12) / K, index = u % count, kv = int(17) + u / count, to = int(21);
  const keys = blockAt(index), base = sequenceOf(keys), k0 = firstOf(keys), nk = tokensOf(keys);
  if (index >= to) return;
  if (int(18) === 0 && index >= int(20)) {
    clearRows(ptr(1), k0, nk, K, kv, 1);
    clearRows(ptr(2), k0, nk, K, kv, 1);
  }
  if (base < 0) return;
  for (let g = int(18); g < int(18) + int(19); g++) {
    for (let b = max(index, int(20)); b < to && sequenceOf(blockAt(b)) === base && sees(blockAt(b), keys); b++) {
      const q0 = firstOf(blockAt(b)), nq = tokensOf(blockAt(b));
      takeQueries(q0, nq, kv * G + g, scratch);
      meetKeys(k0, nk, kv, q0, nq, dsOf(kv, g, b, keys), scratch);
    }
  }
}

/** dq of a block of queries and one query head. */
export function attentionBwdQueries(u: i32, scratch: usize): void {
  const H = int(12), K = int(13), d = int(14), G = H / K, band = int(21) - int(20), slice = u / band, b = int(21) - 1 - u % band;
  const kv = int(17) + slice / int(19), g = int(18) + slice % int(19), h = kv * G + g, dq = dqOf(scratch);
  const queries = blockAt(b), q0 = firstOf(queries), nq = tokensOf(queries);
  if (sequenceOf(queries) < 0) return clearRows(ptr(0), q0, nq, H, h, 1);
  memory.fill(dq, 0, words(QB * padded(d)));
  for (let j = b - placeOf(queries); j <= b; j++) {
    const keys = blockAt(j), k0 = firstOf(keys);
    if (sees(queries, keys)) meetQueries(k0, tokensOf(keys), kv, q0 - k0, nq, dsOf(kv, g, b, keys), dq, scratch);
  }
  copyRows(ptr(0) + words((q0 * H + h) * d), words(H * d), dq, padded(d), nq, d);
}
