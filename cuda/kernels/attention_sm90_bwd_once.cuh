// What surrounds the products of attention's backward (attention_sm90_bwd_once.cu): the warps that load and that keep the order of
// additions to dq, and the additions themselves. Barriers are in pairs, written and read, one pair a place in a ring.
#pragma once
#include "attention_schedule.cuh"
#include "attention_sm90.cuh"
#include "rotation.cuh"

namespace us {
namespace sm90 {

constexpr int STAGES = 4, SLOTS = 2, TOLD = 8;  // rings: tiles of queries; of score gradients; visits

struct Params {
  CUtensorMap q, k, v, dout;
  void *dq, *dk, *dv;
  const float* rows;  // [H][visits][2][QUERIES]: lse * log2(e), delta
  float4* sums;       // [H][visits][DP/8][128]: dq as the threads of two warpgroups hold it
  unsigned* turns;    // [H][visits]: additions made
  const int* cu;
  Schedule plan;
  int N, H, K, d, S, window;
  float scale, softcap;
  Rotation turn_q, turn_k;  // of dq and dk, when d is DP
};

/** A visit, as the warp that loads its queries tells the others. `tile`: of queries; `rank` `of`: among the additions to it. */
struct Visit { int head, tile, rank, of; };

/**
 * Shared memory's end. `full`, `empty`: a stage of queries; `scores`, `taken`: a slot of score gradients, written and multiplied;
 * `told`: a visit's description; `granted`, `added`, `noted`: its addition to dq.
 */
struct Common {
  uint64_t keys, keys_free, full[STAGES], empty[STAGES], scores[SLOTS], taken[SLOTS], granted[SLOTS], added[SLOTS], noted[SLOTS], told[TOLD];
  Visit visit[TOLD];
  int end[KEYS], clear[2][2];  // of each key's sequence; from and to: query tiles that see all keys of a warpgroup
};

template <int DP> struct Shape {
  static constexpr int MINE = tile_bytes(KEYS, DP), QO = tile_bytes(QUERIES, DP), DS = KEYS * QUERIES * 2, ROWS = 2 * QUERIES * 4;
  static constexpr int V = MINE, RING = 2 * MINE, SCORES = RING + STAGES * 2 * QO, ROW = SCORES + SLOTS * DS;
  static constexpr int COMMON = ROW + STAGES * ROWS, BYTES = COMMON + sizeof(Common);
};

/**
 * k lies as four panels of DP / 4 features, with a swizzle as wide, so that a warpgroup can take the first and third or the second
 * and fourth for its half of dq: the features that RoPE pairs are then in one thread.
 */
template <int DP> struct PanelOfKeys {
  static constexpr int WIDTH = DP / 4, BYTES = KEYS * WIDTH * 2;
  /** Keys as the m of a product over features: 16 features from 16 * step. `address` is that of the first key. */
  static __device__ __forceinline__ uint64_t by_features(uint32_t address, int step) {
    return narrow_operand<WIDTH>(address + step * 16 / WIDTH * BYTES + step * 16 % WIDTH * 2);
  }
  /** Keys as the k of a product, features of every other panel from `address` as its n: 16 keys from 16 * step. */
  static __device__ __forceinline__ uint64_t by_rows(uint32_t address, int step) {
    return narrow_operand<WIDTH>(address + step * 16 * WIDTH * 2) | static_cast<uint64_t>(2 * BYTES >> 4) << 16;
  }
};

/** Where the n-th use of a ring of N lies, and the parity of its round. */
template <int N> __device__ __forceinline__ int at(unsigned n) { return n % N; }
template <int N> __device__ __forceinline__ int parity(unsigned n) { return n / N & 1; }

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- the first warpgroup: a warp loads queries, one keys, one keeps the order of additions ----

template <int DP> __device__ __forceinline__ void load_queries(const Params& p, uint8_t* smem, Common& c) {
  using S = Shape<DP>;
  Walk w;
  for (int n = 0; w.next(p.plan); n++) {
    const Order o = order_of(p.plan, w);
    if (threadIdx.x == 0) {
      const int head = w.code % p.K * p.plan.G + w.g, tile = w.query_tile(), stage = at<STAGES>(n);
      uint64_t* full = &c.full[stage];
      wait(&c.empty[stage], parity<STAGES>(n) ^ 1);
      c.visit[at<TOLD>(n)] = {head, tile, o.rank, o.of};
      arrive(&c.told[at<TOLD>(n)]);
      expect_bytes(full, 2 * S::QO + S::ROWS);
      uint8_t* dst = smem + S::RING + stage * 2 * S::QO;
      load_tile<QUERIES, DP>(dst, &p.q, full, head, tile * QUERIES);
      load_tile<QUERIES, DP>(dst + S::QO, &p.dout, full, head, tile * QUERIES);
      load_bytes(smem + S::ROW + stage * S::ROWS, p.rows + (static_cast<size_t>(head) * p.plan.visits + tile) * 2 * QUERIES, S::ROWS, full);
    }
    __syncwarp();
  }
}

template <int DP> __device__ __forceinline__ void load_keys(const Params& p, uint8_t* smem, Common& c) {
  using S = Shape<DP>;
  for (int round = 0, code; (code = p.plan.code(round)) >= 0; round++) {
    wait(&c.keys_free, round & 1 ^ 1);
    expect_bytes(&c.keys, 2 * S::MINE);
#pragma unroll
    for (int i = 0; i < 4; i++) load_3d(smem + i * PanelOfKeys<DP>::BYTES, &p.k, &c.keys, i * (DP / 4), code % p.K, code / p.K * KEYS);
    load_tile<KEYS, DP>(smem + S::V, &p.v, &c.keys, code % p.K, code / p.K * KEYS);
  }
}

__device__ __forceinline__ void wait_turn(const unsigned* turn, unsigned rank) {
  unsigned now;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
  while (now != rank);
}
__device__ __forceinline__ void pass_turn(unsigned* turn, unsigned next) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(turn), "r"(next) : "memory");
}

/** One thread grants this block's additions when those of other blocks before them are made; another passes the turns on. */
template <bool GRANT> __device__ __forceinline__ void keep_order(const Params& p, Common& c) {
  int n = 0;
  for (int round = 0, code; (code = p.plan.code(round)) >= 0; round++) {
    for (const int to = n + p.plan.length(code / p.K) * p.plan.G; n < to; n++) {
      wait(&c.told[at<TOLD>(n)], parity<TOLD>(n));
      const Visit v = c.visit[at<TOLD>(n)];
      unsigned* turn = p.turns + static_cast<size_t>(v.head) * p.plan.visits + v.tile;
      const int slot = at<SLOTS>(n);
      if (GRANT) {
        if (v.rank > 0) wait_turn(turn, v.rank);
        wait(&c.noted[slot], parity<SLOTS>(n) ^ 1);
        arrive(&c.granted[slot]);
      } else {
        wait(&c.added[slot], parity<SLOTS>(n));
        arrive(&c.noted[slot]);
        if (v.rank < v.of - 1) pass_turn(turn, v.rank + 1);
      }
    }
  }
}

// ---- dq: each of two warpgroups half of the features, in two parts that lie DP / 2 apart ----

__device__ __forceinline__ void add4(float4* to, const float* x) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]) : "memory");
}

/** A warpgroup's half of the features of a tile of dq from their sums. */
template <class T, int DP> __device__ __forceinline__ void write_dq(const Params& p, float (&dq)[DP / 4], const Visit& v, int group) {
  const int t = threadIdx.x % 128, lane = t % 32, row = v.tile * QUERIES + t / 32 * 16 + lane / 4;
  if (p.turn_q.table) turn_rows<DP / 2, DP / 2>(dq, p.turn_q, row, p.N, group * (DP / 4));
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (row + 8 * h >= p.N) continue;
    T* to = static_cast<T*>(p.dq) + (static_cast<size_t>(row + 8 * h) * p.H + v.head) * p.d + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < DP / 16; i++) {
      const int feature = group * (DP / 4) + i / (DP / 32) * (DP / 2) + i % (DP / 32) * 8;
      if (feature < p.d) *reinterpret_cast<uint32_t*>(to + feature) = pack2<T>(dq[4 * i + 2 * h] * p.scale, dq[4 * i + 2 * h + 1] * p.scale);
    }
  }
}

/** Adds visit n's part of a warpgroup's half of the features to dq's sums, or writes dq when it is the last. */
template <class T, int DP> __device__ __forceinline__ void add_dq(const Params& p, Common& c, float (&dq)[DP / 4], int n, int group) {
  const Visit& v = c.visit[at<TOLD>(n)];
  float4* sums = p.sums + ((static_cast<size_t>(v.head) * p.plan.visits + v.tile) * 2 + group) * (DP / 16 * 128) + threadIdx.x % 128;
  wait(&c.granted[at<SLOTS>(n)], parity<SLOTS>(n));
  const int rank = v.rank;
  if (rank > 0 && rank < v.of - 1) {
#pragma unroll
    for (int i = 0; i < DP / 16; i++) add4(sums + i * 128, &dq[4 * i]);
  } else if (rank < v.of - 1) {
#pragma unroll
    for (int i = 0; i < DP / 16; i++) __stcg(sums + i * 128, make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]));
  } else {
    if (rank > 0) {
#pragma unroll
      for (int i = 0; i < DP / 16; i++) {
        const float4 x = __ldcg(sums + i * 128);
        dq[4 * i] += x.x, dq[4 * i + 1] += x.y, dq[4 * i + 2] += x.z, dq[4 * i + 3] += x.w;
      }
    }
    write_dq<T, DP>(p, dq, v, group);
  }
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(&c.added[at<SLOTS>(n)]);
}

}  // namespace sm90
}  // namespace us
