// Attention backward on Hopper where attention_sm90_bwd_once.cu has too little to share out: in two kernels, one owns queries
// and sums dq over keys, one owns keys and sums dk, dv over queries and the query heads of the group. Both recompute the
// weights from lse: seven products where a single kernel does five, but every sum stays in registers in a fixed order, and the
// weights go from accumulator to operand without touching memory. delta = sum of dOut * out of a row; ds = w * (dOut v -
// delta); the score's slope is applied to ds.
#include "attention_sm90.cuh"

#include "gemm_sm90.h"

namespace us {
namespace {

using namespace sm90;

constexpr int OWN = 128, THREADS = 384;  // rows a block owns, 64 a warpgroup

struct Params {
  CUtensorMap q, k, v, dout;      // boxes of what this kernel reads
  CUtensorMap to[2];              // dq; or dk, dv
  const float *lse, *delta;       // [H,N]
  const int* cu;
  int N, H, K, S, window, tiles;  // tiles: of owned rows
  float scale, softcap;
};

/** The weight exp(score - lse) from a product q k; with a soft cap also the score's slope beside p.scale. */
template <bool CAP> __device__ __forceinline__ float weight(float qk, float lse_log2, const Params& p, float& slope) {
  if constexpr (CAP) {
    const float t = tanh_exp(qk * (p.scale / p.softcap));
    slope = 1.0f - t * t;
    return exp2f(p.softcap * t * LOG2E - lse_log2);
  }
  return exp2f(qk * (p.scale * LOG2E) - lse_log2);
}

/** d = rows_a . rows_b over the features: a group of its own. */
template <class T, int DP, int N> __device__ __forceinline__ void multiply_features(float (&d)[N / 2], uint32_t a, uint32_t b) {
  wgmma_begin();
  Wgmma<T, N, 0>::first(d, by_features<OWN>(a, 0), by_features<N>(b, 0));
#pragma unroll
  for (int i = 1; i < DP / 16; i++) Wgmma<T, N, 0>::ss(d, by_features<OWN>(a, i), by_features<N>(b, i), 1);
  wgmma_commit();
}

// ---- dq: a block owns 128 queries of one head ----

template <int DP> struct QShape {
  static constexpr int BK = DP == 64 ? 128 : 64, STAGES = 3;
  static constexpr int MINE = tile_bytes(OWN, DP), KV = tile_bytes(BK, DP);
  static constexpr int DOUT = MINE, RING = 2 * MINE, BARRIERS = RING + STAGES * 2 * KV, BYTES = BARRIERS + 256 + 1024;
};

template <int DP> __device__ __forceinline__ void produce_q(const Params& p, uint8_t* smem, uint64_t* bar, int head, int q0, int from, int to) {
  using S = QShape<DP>;
  uint64_t *mine = bar, *full = bar + 1, *empty = full + S::STAGES;
  expect_bytes(mine, 2 * S::MINE);
  load_tile<OWN, DP>(smem, &p.q, mine, head, q0), load_tile<OWN, DP>(smem + S::DOUT, &p.dout, mine, head, q0);
  int stage = 0, phase = 0;
  for (int k = from; k < to; k++) {
    wait(&empty[stage], phase ^ 1);
    uint8_t* dst = smem + S::RING + stage * 2 * S::KV;
    expect_bytes(&full[stage], 2 * S::KV);
    load_tile<S::BK, DP>(dst, &p.k, &full[stage], head / (p.H / p.K), k * S::BK);
    load_tile<S::BK, DP>(dst + S::KV, &p.v, &full[stage], head / (p.H / p.K), k * S::BK);
    if (++stage == S::STAGES) stage = 0, phase ^= 1;
  }
}

template <class T, int DP, bool CAP>
__device__ __forceinline__ void consume_q(const Params& p, uint8_t* smem, uint64_t* bar, int head, int q0, int from, int to) {
  using S = QShape<DP>;
  constexpr int BK = S::BK;
  uint64_t *mine = bar, *full = bar + 1, *empty = full + S::STAGES;
  const int group = threadIdx.x / 128 - 1, t = threadIdx.x % 128, lane = t % 32, first = q0 + group * 64, row = first + t / 32 * 16 + lane / 4;
  const uint32_t base = shared_address(smem), q = base + group * 64 * 128, dout = q + S::DOUT;
  int start[2];
  float lse[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int n = min(row + 8 * h, p.N - 1);
    start[h] = sequence_start(p.cu, p.S, row + 8 * h);
    lse[h] = p.lse[static_cast<size_t>(head) * p.N + n] * LOG2E, delta[h] = p.delta[static_cast<size_t>(head) * p.N + n];
  }
  const int start_last = sequence_start(p.cu, p.S, first + 63);
  float dq[DP / 2], s[BK / 2], d[BK / 2];
#pragma unroll
  for (int i = 0; i < DP / 2; i++) dq[i] = 0;
  int stage = 0, phase = 0;
  const Turn turn{group};
  turn.begin();
  wait(mine, 0);
  for (int k = from; k < to; k++) {
    const uint32_t kt = base + S::RING + stage * 2 * S::KV, vt = kt + S::KV;
    wait(&full[stage], phase);
    turn.wait();
    multiply_features<T, DP, BK>(s, q, kt), multiply_features<T, DP, BK>(d, dout, vt);
    turn.pass();
    wgmma_wait<1>(), pin(s);
    if (k > from && t == 0) arrive(&empty[stage ? stage - 1 : S::STAGES - 1]);  // dq of the last tile was issued before these scores
    const int k0 = k * BK;
    const bool masked = k0 + BK - 1 > first || k0 < start_last || (p.window > 0 && first + 63 - k0 >= p.window);
    float weights[BK / 2], slope[CAP ? BK / 2 : 1];
#pragma unroll
    for (int i = 0; i < BK / 2; i++) {
      const int h = i / 2 % 2, key = k0 + i / 4 * 8 + lane % 4 * 2 + i % 2;
      weights[i] = weight<CAP>(s[i], lse[h], p, slope[CAP ? i : 0]);
      if (masked && !sees(row + 8 * h, key, start[h], p.window)) weights[i] = 0;
    }
    wgmma_wait<0>(), pin(d);
#pragma unroll
    for (int i = 0; i < BK / 2; i++) weights[i] *= (d[i] - delta[i / 2 % 2]) * (CAP ? slope[i] : 1.0f);
    uint32_t ds[BK / 16][4];
#pragma unroll
    for (int i = 0; i < BK / 16; i++) as_operand<T>(ds[i], weights, i);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < BK / 16; i++) Wgmma<T, DP, 1>::rs(dq, ds[i], by_rows<BK>(kt, i), 1);
    wgmma_commit();
    if (++stage == S::STAGES) stage = 0, phase ^= 1;
  }
  wgmma_wait<0>(), pin(dq);
#pragma unroll
  for (int i = 0; i < DP / 2; i++) dq[i] *= p.scale;
  // this warpgroup alone reads these 64 rows of the queries' room, and has done so
  put_rows<T, OWN, DP>(q, dq);
  fence_async();
  named_barrier(1 + group, 128);
  if (t == 0 && first < p.N) {
#pragma unroll
    for (int i = 0; i < DP / 64; i++) store_3d(&p.to[0], smem + group * 64 * 128 + i * OWN * 128, i * 64, head, first);
    store_commit(), store_wait_read<0>();
  }
}

template <class T, int DP, bool CAP> __global__ void __launch_bounds__(THREADS, 1) dq_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = QShape<DP>;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint64_t* bar = reinterpret_cast<uint64_t*>(smem + S::BARRIERS);
  const int head = blockIdx.x % p.H, q0 = (p.tiles - 1 - static_cast<int>(blockIdx.x) / p.H) * OWN;
  const int seen = first_key(p.cu, p.S, q0, p.window), from = seen > p.N ? 0 : seen / S::BK;
  const int to = seen > p.N ? 0 : (min(q0 + OWN, p.N) - 1) / S::BK + 1;
  if (threadIdx.x == 0) {
    barrier_init(bar, 1);
    for (int i = 0; i < S::STAGES; i++) barrier_init(&bar[1 + i], 1), barrier_init(&bar[1 + S::STAGES + i], 2);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x == 0) produce_q<DP>(p, smem, bar, head, q0, from, to);
  } else {
    registers_up<240>();
    consume_q<T, DP, CAP>(p, smem, bar, head, q0, from, to);
  }
#endif
}

// ---- dk, dv: a block owns 128 keys of one kv head ----

template <int DP> struct KShape {
  static constexpr int BQ = 64, STAGES = 3;
  static constexpr int MINE = tile_bytes(OWN, DP), QO = tile_bytes(BQ, DP);
  static constexpr int V = MINE, RING = 2 * MINE, ROWS = RING + STAGES * 2 * QO;  // ROWS: lse * log2(e) and delta, f32 [STAGES][2][BQ]
  static constexpr int BARRIERS = ROWS + STAGES * 2 * BQ * 4, BYTES = BARRIERS + 256 + 1024;
};

struct Range { int kv_head, k0, q_from, q_to; };  // query tiles

template <int DP> __device__ __forceinline__ void produce_k(const Params& p, uint8_t* smem, uint64_t* bar, const Range& w) {
  using S = KShape<DP>;
  uint64_t *mine = bar, *full = bar + 1, *empty = full + S::STAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, G = p.H / p.K;
  if (warp > 1) return;
  if (threadIdx.x == 0) {
    expect_bytes(mine, 2 * S::MINE);
    load_tile<OWN, DP>(smem, &p.k, mine, w.kv_head, w.k0), load_tile<OWN, DP>(smem + S::V, &p.v, mine, w.kv_head, w.k0);
  }
  int stage = 0, phase = 0;
  for (int g = 0; g < G; g++) {
    const int head = w.kv_head * G + g;
    for (int q = w.q_from; q < w.q_to; q++) {
      wait(&empty[stage], phase ^ 1);
      if (warp == 0 && lane == 0) {
        uint8_t* dst = smem + S::RING + stage * 2 * S::QO;
        expect_bytes(&full[stage], 2 * S::QO);
        load_tile<S::BQ, DP>(dst, &p.q, &full[stage], head, q * S::BQ);
        load_tile<S::BQ, DP>(dst + S::QO, &p.dout, &full[stage], head, q * S::BQ);
      }
      if (warp == 1) {
        float* rows = reinterpret_cast<float*>(smem + S::ROWS) + stage * 2 * S::BQ;
        for (int i = lane; i < S::BQ; i += 32) {
          const int n = q * S::BQ + i;
          const size_t at = static_cast<size_t>(head) * p.N + n;
          rows[i] = n < p.N ? p.lse[at] * LOG2E : 0.0f, rows[S::BQ + i] = n < p.N ? p.delta[at] : 0.0f;
        }
        __syncwarp();
        if (lane == 0) arrive(&full[stage]);
      }
      __syncwarp();
      if (++stage == S::STAGES) stage = 0, phase ^= 1;
    }
  }
}

template <class T, int DP, bool CAP>
__device__ __forceinline__ void consume_k(const Params& p, uint8_t* smem, uint64_t* bar, const Range& w) {
  using S = KShape<DP>;
  constexpr int BQ = S::BQ;
  uint64_t *mine = bar, *full = bar + 1, *empty = full + S::STAGES;
  const int group = threadIdx.x / 128 - 1, t = threadIdx.x % 128, lane = t % 32, first = w.k0 + group * 64, key = first + t / 32 * 16 + lane / 4;
  const uint32_t base = shared_address(smem), k = base + group * 64 * 128, v = k + S::V;
  // query sees key: key <= query < the end of key's sequence, and the window
  const int end[2] = {sequence_end(p.cu, p.S, key), sequence_end(p.cu, p.S, key + 8)}, end_first = sequence_end(p.cu, p.S, first);
  float dk[DP / 2], dv[DP / 2], s[BQ / 2], d[BQ / 2];
#pragma unroll
  for (int i = 0; i < DP / 2; i++) dk[i] = dv[i] = 0;
  int stage = 0, phase = 0;
  const Turn turn{group};
  turn.begin();
  wait(mine, 0);
  const int tiles = w.q_to - w.q_from, all = tiles * (p.H / p.K);
  for (int it = 0; it < all; it++) {
    const uint32_t q = base + S::RING + stage * 2 * S::QO, dout = q + S::QO;
    const int q0 = (w.q_from + it % tiles) * BQ;
    const float* rows = reinterpret_cast<const float*>(smem + S::ROWS) + stage * 2 * BQ + lane % 4 * 2;
    wait(&full[stage], phase);
    turn.wait();
    multiply_features<T, DP, BQ>(s, k, q), multiply_features<T, DP, BQ>(d, v, dout);
    turn.pass();
    wgmma_wait<1>(), pin(s);
    if (it > 0 && t == 0) arrive(&empty[stage ? stage - 1 : S::STAGES - 1]);  // dv and dk of the last tile were issued before these scores
    const bool masked = q0 < first + 63 || q0 + BQ > end_first || (p.window > 0 && q0 + BQ - 1 - first >= p.window);
    float weights[BQ / 2], slope[CAP ? BQ / 2 : 1];
#pragma unroll
    for (int i = 0; i < BQ / 2; i++) {
      const int h = i / 2 % 2, c = i / 4 * 8 + i % 2, query = q0 + c + lane % 4 * 2, own = key + 8 * h;
      weights[i] = weight<CAP>(s[i], rows[c], p, slope[CAP ? i : 0]);
      if (masked && !(query >= own && query < end[h] && (p.window == 0 || query - own < p.window))) weights[i] = 0;
    }
    uint32_t a[BQ / 16][4], ds[BQ / 16][4];
#pragma unroll
    for (int i = 0; i < BQ / 16; i++) as_operand<T>(a[i], weights, i);
    wgmma_wait<0>(), pin(d);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < BQ / 16; i++) Wgmma<T, DP, 1>::rs(dv, a[i], by_rows<BQ>(dout, i), 1);
    wgmma_commit();
#pragma unroll
    for (int i = 0; i < BQ / 2; i++) weights[i] *= (d[i] - rows[BQ + i / 4 * 8 + i % 2]) * (CAP ? slope[i] : 1.0f);
#pragma unroll
    for (int i = 0; i < BQ / 16; i++) as_operand<T>(ds[i], weights, i);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < BQ / 16; i++) Wgmma<T, DP, 1>::rs(dk, ds[i], by_rows<BQ>(q, i), 1);
    wgmma_commit();
    wgmma_wait<1>(), pin(dv);  // frees a's registers; dk goes on beside the next scores
    if (++stage == S::STAGES) stage = 0, phase ^= 1;
  }
  wgmma_wait<0>(), pin(dv), pin(dk);
#pragma unroll
  for (int i = 0; i < DP / 2; i++) dk[i] *= p.scale;
  put_rows<T, OWN, DP>(k, dk), put_rows<T, OWN, DP>(v, dv);  // as in dq: rooms that this warpgroup alone has read
  fence_async();
  named_barrier(1 + group, 128);
  if (t == 0 && first < p.N) {
#pragma unroll
    for (int i = 0; i < DP / 64; i++) {
      const uint8_t* src = smem + group * 64 * 128 + i * OWN * 128;
      store_3d(&p.to[0], src, i * 64, w.kv_head, first), store_3d(&p.to[1], src + S::V, i * 64, w.kv_head, first);
    }
    store_commit(), store_wait_read<0>();
  }
}

template <class T, int DP, bool CAP> __global__ void __launch_bounds__(THREADS, 1) dkv_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = KShape<DP>;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint64_t* bar = reinterpret_cast<uint64_t*>(smem + S::BARRIERS);
  Range w{static_cast<int>(blockIdx.x) % p.K, static_cast<int>(blockIdx.x) / p.K * OWN, 0, 0};
  const int last = min(min(w.k0 + OWN, p.N), p.cu[p.S]) - 1;  // the last key that a query may see
  if (last >= w.k0) {
    int end = sequence_end(p.cu, p.S, last);
    if (p.window > 0) end = min(end, last + p.window);
    w.q_from = w.k0 / S::BQ, w.q_to = (end + S::BQ - 1) / S::BQ;
  }
  if (threadIdx.x == 0) {
    barrier_init(bar, 1);
    for (int i = 0; i < S::STAGES; i++) barrier_init(&bar[1 + i], 2), barrier_init(&bar[1 + S::STAGES + i], 2);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_down<24>();
    produce_k<DP>(p, smem, bar, w);
  } else {
    registers_up<240>();
    consume_k<T, DP, CAP>(p, smem, bar, w);
  }
#endif
}

// ---- launches ----

template <class Kernel> int launch(const char* what, Kernel kernel, const Params& p, int count, int bytes) {
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (e != cudaSuccess) return cuda_error("attention_bwd", e);
  kernel<<<count, THREADS, bytes, stream()>>>(p);
  return launched(what);
}

template <class T, int DP, bool CAP> int run(const Attention& a) {
  Params p{};
  p.lse = a.lse, p.delta = a.delta, p.cu = a.cu, p.N = a.N, p.H = a.H, p.K = a.K, p.S = a.S, p.window = a.o.window;
  p.tiles = static_cast<int>(blocks(a.N, OWN)), p.scale = a.o.scale, p.softcap = a.o.softcap;
  constexpr int BK = QShape<DP>::BK, BQ = KShape<DP>::BQ;
  bool ok = map_heads(&p.q, a.q, a.N, a.H, a.d, OWN) && map_heads(&p.dout, a.dout, a.N, a.H, a.d, OWN) &&
            map_heads(&p.k, a.k, a.N, a.K, a.d, BK) && map_heads(&p.v, a.v, a.N, a.K, a.d, BK) &&
            map_heads(&p.to[0], a.dq, a.N, a.H, a.d, 64);
  if (ok)
    if (const int rc = launch("attention_bwd dq", dq_kernel<T, DP, CAP>, p, p.tiles * a.H, QShape<DP>::BYTES)) return rc;
  ok = ok && map_heads(&p.q, a.q, a.N, a.H, a.d, BQ) && map_heads(&p.dout, a.dout, a.N, a.H, a.d, BQ) &&
       map_heads(&p.k, a.k, a.N, a.K, a.d, OWN) && map_heads(&p.v, a.v, a.N, a.K, a.d, OWN) &&
       map_heads(&p.to[0], a.dk, a.N, a.K, a.d, 64) && map_heads(&p.to[1], a.dv, a.N, a.K, a.d, 64);
  if (!ok) return fail(US_DEVICE, "Cannot run attention_bwd: the driver refused a tensor map");
  return launch("attention_bwd dk dv", dkv_kernel<T, DP, CAP>, p, p.tiles * a.K, KShape<DP>::BYTES);
}

template <class T> int pick(const Attention& a) {
  if (a.o.softcap > 0) return a.d <= 64 ? run<T, 64, true>(a) : run<T, 128, true>(a);
  return a.d <= 64 ? run<T, 64, false>(a) : run<T, 128, false>(a);
}

}  // namespace

bool attention_sm90_bwd(const Attention& a, int& rc) {
  // Head sizes past 128 leave no room for the sums of dk and dv beside each other: they take the exact engine.
  if (!has_sm90() || a.d % 8 || a.d > 128 || !aligned16(a.q, a.k, a.v, a.dout, a.dq, a.dk, a.dv)) return false;
  rc = a.dtype == BF16 ? pick<bf16>(a) : pick<f16>(a);
  return true;
}

}  // namespace us
