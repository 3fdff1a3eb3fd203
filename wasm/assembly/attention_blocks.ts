// Cuts the tokens of an attention call into blocks of at most QB consecutive positions of one sequence, and refuses
// bounds, sequences and positions that lead outside. Called once, on the calling thread. A block is four i32: first
// token, tokens, first key's row, position of the first token; rows outside every sequence have -1 as key's row.
import { QB } from "./attention";
import { BAD_CACHE_ROW, BAD_SEQUENCES, fail, int, ptr, words } from "./job";

// @ts-ignore: decorator
@inline
function put(at: usize, first: i32, tokens: i32, key: i32, position: i32): usize {
  store<i32>(at, first);
  store<i32>(at, tokens, 4);
  store<i32>(at, key, 8);
  store<i32>(at, position, 12);
  return at + 16;
}

/** Blocks of rows from..to of a sequence that starts at `start`, or of no sequence. */
function putAll(at: usize, from: i32, to: i32, start: i32): usize {
  for (let n = from; n < to; n += QB) at = put(at, n, min(QB, to - n), start, n - max(0, start));
  return at;
}

/** Number of blocks. Arguments: blocks, cu, S, N, maxLen. */
export function blocksOfSequences(): i32 {
  const cu = ptr(1), S = int(2), N = int(3), maxLen = int(4);
  let at = ptr(0), before = 0;
  for (let s = 0; s <= S; s++) {
    const bound = load<i32>(cu + words(s));
    if (bound < before || bound > N || (s > 0 && bound - before > maxLen)) {
      fail(BAD_SEQUENCES, s, bound);
      return 0;
    }
    at = putAll(at, before, bound, s > 0 ? before : -1);
    before = bound;
  }
  at = putAll(at, before, N, -1);
  return <i32>((at - ptr(0)) >> 4);
}

/** Number of blocks. Arguments: blocks, seq, pos, N, S, L. */
export function blocksOfCache(): i32 {
  const N = int(3), S = int(4), L = int(5);
  let at = ptr(0);
  for (let n = 0; n < N;) {
    const s = load<i32>(ptr(1) + words(n)), p = load<i32>(ptr(2) + words(n));
    if (<u32>s >= <u32>S || <u32>p >= <u32>L) {
      fail(BAD_CACHE_ROW, n, <u32>s >= <u32>S ? s : p);
      return 0;
    }
    let run = 1;
    while (
      run < QB && n + run < N && p + run < L && load<i32>(ptr(1) + words(n + run)) === s &&
      load<i32>(ptr(2) + words(n + run)) === p + run
    ) run++;
    at = put(at, n, run, s * L, p);
    n += run;
  }
  return <i32>((at - ptr(0)) >> 4);
}
