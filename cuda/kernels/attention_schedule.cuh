// Who computes what, and when, in attention's backward (attention_sm90_bwd_once.cu): a fixed number of blocks share tiles of 128
// keys of a kv head, and each tile visits the queries that see it, 64 at a time. Several tiles add to one tile of dq, in the
// order in which a clock of equal visits would bring them there: always the same, seldom waited for, and free of deadlock,
// since every block makes its own visits in that order too.
#pragma once
#include "attention_mask.cuh"

namespace us {

constexpr int KEYS = 128, QUERIES = 64, MOST_BLOCKS = 256;  // of a tile, of a visit; of the grid

/** Written by `make_schedule` in one block, read by all blocks of the next kernel. Times are in visits. */
struct Schedule {
  int N, K, G, tiles, visits, blocks, rounds, span;  // tiles of keys; tiles of queries; span: key tiles in flight together
  int *to;     // [tiles]: one past the last query tile that a key tile visits; the first is tile * 2
  int *order;  // [tiles]: room for `make_schedule`
  int *start;  // [tiles][K]: when a key tile of a kv head begins
  int *work;   // [rounds][blocks]: tile * K + kv head, or -1

  __host__ size_t ints() const { return static_cast<size_t>(tiles) * (2 + K) + static_cast<size_t>(rounds) * blocks; }
  __host__ void place(int* at) { to = at, order = to + tiles, start = order + tiles, work = start + tiles * K; }
  __device__ __forceinline__ int from(int tile) const { return tile * (KEYS / QUERIES); }
  /** This block's tile of a round; -1 when it has none. */
  __device__ __forceinline__ int code(int round) const { return round < rounds ? work[round * blocks + blockIdx.x] : -1; }
  __device__ __forceinline__ int length(int tile) const { return to[tile] - from(tile); }
};

/**
 * All visits of this block, one after another. The first query head goes from the diagonal on, the others towards it: so the
 * visits of several tiles to one tile of queries lie apart.
 */
struct Walk {
  int round = -1, code = 0, from = 0, count = 0, g = 0, i = 0;  // i: visits of this query head made before

  /** False at the end. */
  __device__ __forceinline__ bool next(const Schedule& s) {
    if (code < 0) return false;
    if (round >= 0 && ++i < count) return true;
    if (round >= 0 && ++g < s.G) return i = 0, true;
    code = s.code(++round);
    if (code < 0) return false;
    const int tile = code / s.K;
    from = s.from(tile), count = s.to[tile] - from, g = i = 0;
    return true;
  }
  __device__ __forceinline__ int query_tile() const { return g > 0 ? from + count - 1 - i : from + i; }
};

struct Order { int rank, of; };

/** The rank of a visit among all visits to its tile of dq; by a whole warp. */
__device__ __forceinline__ Order order_of(const Schedule& s, const Walk& w) {
  const int lane = threadIdx.x % 32, q = w.query_tile(), own = w.code / s.K, kv_head = w.code % s.K;
  const int time = s.start[w.code] + w.g * w.count + w.i;
  Order o{0, 0};
  for (int last = q / (KEYS / QUERIES);; last -= 32) {
    const int tile = last - lane, to = tile >= 0 ? s.to[tile] : 0;
    const bool visits = to > q;
    bool before = false;
    if (visits) {
      const int from = s.from(tile), at = s.start[tile * s.K + kv_head] + w.g * (to - from) + (w.g > 0 ? to - 1 - q : q - from);
      before = at < time || (at == time && tile < own);
    }
    const unsigned all = __ballot_sync(~0u, visits);
    o.of += __popc(all), o.rank += __popc(__ballot_sync(~0u, before));
    if (all != ~0u) return o;
  }
}

/** Fills the schedule; THREADS >= 32 threads of one block. */
__device__ inline void make_schedule(const Schedule& s, const int* cu, int S, int window) {
  __shared__ int load[MOST_BLOCKS], length[MOST_BLOCKS], by_load[MOST_BLOCKS], by_length[MOST_BLOCKS];
  for (int t = threadIdx.x; t < s.tiles; t += blockDim.x) {
    const int first = t * KEYS, last = min(min(first + KEYS, s.N), cu[S]) - 1;  // the last key that a query may see
    int end = 0;
    if (last >= first) {
      end = sequence_end(cu, S, last);
      if (window > 0) end = min(end, last + window);
    }
    // its own queries at least, so that every tile of dq is written
    s.to[t] = min(max((end + QUERIES - 1) / QUERIES, s.from(t) + KEYS / QUERIES), s.visits);
    const int q = sequence_of(cu, S, first);
    s.start[t] = (q < 0 || q >= S ? first : cu[q]) / KEYS / s.span;  // for now: sequences that are in flight together
  }
  for (int b = threadIdx.x; b < s.blocks; b += blockDim.x) load[b] = 0;
  __syncthreads();
  // sequences in turn, of each the longest tiles first
  for (int t = threadIdx.x; t < s.tiles; t += blockDim.x) {
    const int mine = s.start[t], length = s.length(t);
    int at = 0;
    for (int u = 0; u < s.tiles; u++) {
      const int other = s.start[u], l = s.length(u);
      at += other < mine || (other == mine && (l > length || (l == length && u < t)));
    }
    s.order[at] = t;
  }
  __syncthreads();
  // round by round, the longest tile to the block that is free first
  for (int r = 0; r < s.rounds; r++) {
    const int count = min(s.blocks, s.tiles * s.K - r * s.blocks);
    auto tile = [&](int x) { return s.order[(r * s.blocks + x) / s.K]; };
    for (int x = threadIdx.x; x < count; x += blockDim.x) length[x] = s.length(tile(x));
    __syncthreads();
    for (int x = threadIdx.x; x < s.blocks; x += blockDim.x) {
      int by = 0, at = 0;
#pragma unroll 8
      for (int y = 0; y < s.blocks; y++) by += load[y] < load[x] || (load[y] == load[x] && y < x);
      by_load[by] = x;
      if (x >= count) continue;
#pragma unroll 8
      for (int y = 0; y < count; y++) at += length[y] > length[x] || (length[y] == length[x] && y < x);
      by_length[at] = x;
    }
    __syncthreads();
    for (int x = threadIdx.x; x < s.blocks; x += blockDim.x) {
      const int block = by_load[x];
      int code = -1;
      if (x < count) {
        const int y = by_length[x], t = tile(y);
        code = t * s.K + (r * s.blocks + y) % s.K;
        s.start[code] = load[block], load[block] += length[y] * s.G + 1;  // 1: a change of tiles
      }
      s.work[r * s.blocks + block] = code;
    }
    __syncthreads();
  }
}

}  // namespace us
