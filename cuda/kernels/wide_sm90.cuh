// What a block of a pass over a wide matrix (wide_sm90.cu) works on: jobs, shared memory, its share of rows and columns, its
// copies in, and the thin products' way from the blocks' parts to the rows' owners.
#pragma once
#include "cast.cuh"
#include "low_rank.h"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace wide {

using namespace sm90;

/** ROWS, COLUMNS of a in a stage; R: the rank; MOST: stages of a block's columns, bounded by the gradient's registers. */
constexpr int CLUSTER = 8, ROWS = 64, COLUMNS = 128, R = 16, MOST = 8, OWNED = ROWS / CLUSTER;
constexpr int PANEL = ROWS * 128, STAGE = 2 * PANEL, B_PANEL = R * 128, SIDE = ROWS * R * 2, MOST_RING = 12, LIMIT = 227 * 1024;
/** Floats of a block's thin sums for one owner, one adapter. */
constexpr int PART = OWNED * R;

struct Maps { CUtensorMap a, side, y; };  // y: what a norm of a gives
struct Job {
  const float* b[MAX_SHARING];
  void *c[MAX_SHARING], *copy[MAX_SHARING], *scaled[MAX_SHARING];
  const float* stat;
  float alpha[MAX_SHARING];
  float* part;  // of the gradient: [clusters][K * R]
  uint8_t* to8;
  float* scale8;
  const void* w;  // of the norm, as all until w_type; plus: 1 when the weight is 1 + w
  float *norm_stat, eps, plus;
  int w_type;
  int K, stages, first_cluster, clusters;
  bool by_rank;
};
/** Where things lie in shared memory, in bytes; `ring` is a number of stages. */
struct Room { int ring, b, side, part, squares, gain, barriers, bytes; };
struct Params {
  Maps map[MAX_THIN];
  Job job[MAX_THIN];
  Cast cast[MAX_CASTS];
  Room room;
  int jobs, casts, M;
  bool by_k;
};

inline Room room_of(int count, int stages, bool tall, bool norm) {
  const int b = count * stages * 2 * B_PANEL, side = tall ? 2 * SIDE : 0, part = 2 * CLUSTER * count * PART * 4;
  const int squares = norm ? 4 * CLUSTER * ROWS * 4 : 0, gain = norm ? stages * COLUMNS * 4 : 0;
  const int rest = b + side + part + squares + gain + 512 + 1024;
  Room r{};
  r.ring = (LIMIT - rest) / STAGE < MOST_RING ? (LIMIT - rest) / STAGE : MOST_RING;
  r.b = r.ring * STAGE, r.side = r.b + b, r.part = r.side + side, r.squares = r.part + part;
  r.gain = r.squares + squares, r.barriers = r.gain + gain;
  r.bytes = r.barriers + 512 + 1024;
  return r;
}

/** A block's share of the work. */
struct Work {
  int job, rank, first, tiles;  // tiles of ROWS rows from `first`
  int c0, stages;               // columns from c0
};
struct Barriers {
  uint64_t *full, *empty, *normed, *side_full, *side_empty, *sums, *squares;
  __device__ __forceinline__ Barriers(uint8_t* at, int ring) {
    full = reinterpret_cast<uint64_t*>(at), empty = full + ring, normed = empty + ring, side_full = normed + ring, side_empty = side_full + 2;
    sums = side_empty + 2, squares = sums + 2;
  }
};
struct Slot {
  int at = 0, phase = 0;
  __device__ __forceinline__ void advance(int by, int ring) {
    at += by;
    while (at >= ring) at -= ring, phase ^= 1;
  }
};

__device__ __forceinline__ Work work_of(const Params& q) {
  Work w{};
  const int cluster = blockIdx.x / CLUSTER, all = (q.M + ROWS - 1) / ROWS;
  while (w.job + 1 < q.jobs && cluster >= q.job[w.job + 1].first_cluster) w.job++;
  const Job& g = q.job[w.job];
  const int share = (all + g.clusters - 1) / g.clusters;
  w.rank = static_cast<int>(cluster_rank()), w.first = min((cluster - g.first_cluster) * share, all);
  w.tiles = min(share, all - w.first), w.c0 = w.rank * g.stages * COLUMNS;
  w.stages = max(0, min(g.stages, (g.K - w.c0 + COLUMNS - 1) / COLUMNS));
  return w;
}

template <bool TALL> __device__ __forceinline__ void produce(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar) {
  const Maps& map = q.map[w.job];
  Slot s;
  for (int it = 0; it < w.tiles; it++) {
    const int row = (w.first + it) * ROWS;
    if constexpr (TALL) {
      wait(&bar.side_empty[it & 1], (it >> 1 & 1) ^ 1);
      expect_bytes(&bar.side_full[it & 1], SIDE);
      load_2d(smem + q.room.side + (it & 1) * SIDE, &map.side, &bar.side_full[it & 1], 0, row);
    }
    for (int i = 0; i < w.stages; i++, s.advance(1, q.room.ring)) {
      wait(&bar.empty[s.at], s.phase ^ 1);
      expect_bytes(&bar.full[s.at], STAGE);
      uint8_t* to = smem + s.at * STAGE;
      load_2d(to, &map.a, &bar.full[s.at], w.c0 + i * COLUMNS, row);
      load_2d(to + PANEL, &map.a, &bar.full[s.at], w.c0 + i * COLUMNS + 64, row);
    }
  }
}

/** This block's columns of the adapters, rounded, as operands of wgmma: [stage][half] of R rows of 64 columns, swizzled. */
template <class T, int COUNT> __device__ __forceinline__ void load_b(const Params& q, const Work& w, uint8_t* smem, int thread, int threads) {
  const Job& g = q.job[w.job];
  const int chunks = w.stages * (COLUMNS / 8);
#pragma unroll 4
  for (int e = thread; e < COUNT * R * chunks; e += threads) {
    const int which = e / (R * chunks), rest = e % (R * chunks);
    const int r = q.by_k ? rest % R : rest / chunks, chunk = q.by_k ? rest / R : rest % chunks, k = w.c0 + chunk * 8;
    const float* b = g.b[which];
    float v[8];
    if (k >= g.K) {  // K is a multiple of 8
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = 0;
    } else if (q.by_k) {
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = b[static_cast<size_t>(k + i) * R + r];
    } else {
      load<8>(b + static_cast<size_t>(r) * g.K + k, v);
    }
    uint8_t* panel = smem + q.room.b + (which * g.stages * 2 + chunk / 8) * B_PANEL;
    store<8>(reinterpret_cast<T*>(panel + r * 128 + ((chunk % 8) ^ (r & 7)) * 16), v);
  }
}

/** Sends this block's part of 64 rows of thin sums to the blocks that own them; a wgmma accumulator's layout. */
template <int COUNT>
__device__ __forceinline__ void send_sums(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, int it, const float (&acc)[COUNT][8]) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  const float* from = reinterpret_cast<float*>(smem + q.room.part) + ((it & 1) * CLUSTER + w.rank) * COUNT * PART + lane / 4 * R + lane % 4 * 2;
  if (threadIdx.x % 128 == 0) expect_bytes(&bar.sums[it & 1], CLUSTER * COUNT * PART * 4);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const uint32_t to = remote_address(from, 2 * warp + half), told = remote_address(&bar.sums[it & 1], 2 * warp + half);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) store_remote(to + (i * PART + j * 8) * 4, acc[i][4 * j + 2 * half], acc[i][4 * j + 2 * half + 1], told);
  }
}

/** Adds the blocks' parts of the rows that this one owns, in order, and writes them. */
template <class T, int COUNT> __device__ __forceinline__ void write_sums(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, int it) {
  const Job& g = q.job[w.job];
  wait_remote(&bar.sums[it & 1], it >> 1 & 1);
#pragma unroll
  for (int e = threadIdx.x % 128; e < COUNT * PART / 2; e += 128) {
    const int which = e / (PART / 2), pair = e % (PART / 2), row = (w.first + it) * ROWS + w.rank * OWNED + pair / (R / 2);
    const float* part = reinterpret_cast<float*>(smem + q.room.part) + (it & 1) * CLUSTER * COUNT * PART + e * 2;
    float x = 0, y = 0;
#pragma unroll
    for (int s = 0; s < CLUSTER; s++) {
      const float2 v = *reinterpret_cast<const float2*>(part + s * COUNT * PART);
      x += v.x, y += v.y;
    }
    if (row >= q.M) continue;
    const uint32_t word = pack2<T>(g.alpha[which] * x, g.alpha[which] * y);
    const size_t at = static_cast<size_t>(row) * R + pair % (R / 2) * 2;
    if (g.c[which]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.c[which]) + at) = word;
    if (g.copy[which]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.copy[which]) + at) = word;
    if (!g.scaled[which]) continue;
    const float f = g.alpha[which] * g.stat[2 * row + 1];
    *reinterpret_cast<uint32_t*>(static_cast<T*>(g.scaled[which]) + at) = pack2<T>(f * x, f * y);
  }
}

}  // namespace wide
}  // namespace us
