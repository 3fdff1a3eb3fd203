/**
 * Ranks for the library's BPE. It keys its table of merges by JSON texts, which costs most of loading and of encoding; here a
 * merge is looked up by its two pieces joined by a space, and for SentencePiece vocabularies, which have no merges, by the
 * score of what they make. The algorithm stays the library's: `add_node` is its hook for a pair that may be merged.
 * @module
 */

/** What the library keeps of a possible merge. */
interface Pair {
  token: string;
  bias: number;
  score?: number;
  next: Pair;
}

/** The part of the library's BPE model that is replaced. */
interface RankedModel {
  add_node(queue: { push(pair: Pair): void }, pair: Pair): void;
}

/** Rank of merging two pieces, lowest first; undefined when they do not merge. */
export type MergeRank = (left: string, right: string) => number | undefined;

/** Gives the library's BPE model its ranks. Equal ranks merge from the left, since `bias` grows along the word from 0 to 1. */
export function setRanks(model: unknown, rank: MergeRank): void {
  (model as RankedModel).add_node = (queue, pair) => {
    const r = rank(pair.token, pair.next.token);
    if (r === undefined) return;
    pair.score = r + pair.bias;
    queue.push(pair);
  };
}

/** Ranks by place in a list of merges, "a b" or [a, b]; of a merge that stands twice the later place counts, as in Rust. */
export function ranksOfMerges(merges: readonly (string | readonly [string, string])[]): MergeRank {
  const ranks = new Map<string, number>();
  // "a b" cannot hold pieces with spaces, so it is its own key; pairs can, so theirs starts with the left piece's length.
  const keyOf = typeof merges[0] === "string"
    ? (left: string, right: string) => `${left} ${right}`
    : (left: string, right: string) => `${left.length} ${left}${right}`;
  merges.forEach((m, rank) => ranks.set(typeof m === "string" ? m : keyOf(m[0], m[1]), rank));
  return (left, right) => ranks.get(keyOf(left, right));
}

/**
 * Ranks as SentencePiece merges: the pair whose joint piece has the highest score first. Scores are log-probabilities or
 * negated ranks; only their order counts here, and equal scores share a rank.
 */
export function ranksOfScores(pieces: ReadonlyMap<string, number>, scores: ArrayLike<number>): MergeRank {
  const order = [...new Set(Float64Array.from(pieces.values(), (id) => scores[id]!))].sort((a, b) => b - a);
  const rankOf = new Map(order.map((score, rank) => [score, rank]));
  const ranks = new Map<string, number>();
  for (const [piece, id] of pieces) ranks.set(piece, rankOf.get(scores[id]!)!);
  return (left, right) => ranks.get(left + right);
}
