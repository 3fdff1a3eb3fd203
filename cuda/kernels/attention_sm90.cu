// Attention forward on Hopper. A block is a producer warp and two warpgroups of 64 queries; K and V tiles come through a
// ring of two stages. While the softmax of one tile runs on the ordinary units, the scores of the next and the output of the
// last run on the tensor cores (Shah et al. 2024, FlashAttention-3). Tiles go from the diagonal back, so that masks come
// first. Arithmetic-bound: 4 d operations a score.
#include "attention_sm90.cuh"

#include "gemm_sm90.h"

namespace us {
namespace {

using namespace sm90;

constexpr int BQ = 128, THREADS = 384, STAGES = 2;

template <int DP> struct Shape {
  static constexpr int BK = DP == 256 ? 64 : 128;
  static constexpr int Q = tile_bytes(BQ, DP), KV = tile_bytes(BK, DP);
  static constexpr bool OWN_OUT = DP < 256;  // else the output leaves through the queries' room
  static constexpr int K0 = Q, V0 = K0 + STAGES * KV, OUT = V0 + STAGES * KV, BARRIERS = OUT + (OWN_OUT ? Q : 0);
  static constexpr int BYTES = BARRIERS + 256 + 1024;
};

struct Params {
  CUtensorMap q, k, v, out;
  float* lse;
  const int* cu;
  int N, H, K, S, window, tiles;  // tiles: of queries
  float scale, softcap;
};

/** Barriers: all in one place behind the tiles. */
struct Barriers { uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES]; };

struct Work { int head, q0, from, to; };  // key tiles from `from` up to `to`, none when to <= from

/** Later tiles, which see more keys, first; the heads of a tile side by side, since they share keys. */
template <int BK> __device__ __forceinline__ Work work_at(const Params& p, int t) {
  const int q0 = (p.tiles - 1 - t / p.H) * BQ, first = first_key(p.cu, p.S, q0, p.window);
  return {t % p.H, q0, first > p.N ? 0 : first / BK, first > p.N ? 0 : (min(q0 + BQ, p.N) - 1) / BK + 1};
}

template <int DP> __device__ __forceinline__ void produce(const Params& p, uint8_t* smem, Barriers& b) {
  using S = Shape<DP>;
  int stage = 0, phase = 0, q_phase = 0;
  for (int t = blockIdx.x; t < p.tiles * p.H; t += gridDim.x) {
    const Work w = work_at<S::BK>(p, t);
    if (w.to <= w.from) continue;
    wait(&b.q_empty, q_phase ^ 1), q_phase ^= 1;
    expect_bytes(&b.q_full, S::Q);
    load_tile<BQ, DP>(smem, &p.q, &b.q_full, w.head, w.q0);
    const int kv_head = w.head / (p.H / p.K);
    for (int k = w.to - 1; k >= w.from; k--) {
      wait(&b.k_empty[stage], phase ^ 1);
      expect_bytes(&b.k_full[stage], S::KV);
      load_tile<S::BK, DP>(smem + S::K0 + stage * S::KV, &p.k, &b.k_full[stage], kv_head, k * S::BK);
      wait(&b.v_empty[stage], phase ^ 1);
      expect_bytes(&b.v_full[stage], S::KV);
      load_tile<S::BK, DP>(smem + S::V0 + stage * S::KV, &p.v, &b.v_full[stage], kv_head, k * S::BK);
      if (++stage == STAGES) stage = 0, phase ^= 1;
    }
  }
}

/** A warpgroup's 64 queries; everything about the thread's two rows, `row` and `row + 8`. */
template <class T, int DP> struct Rows {
  using S = Shape<DP>;
  static constexpr int BK = S::BK;
  const Params& p;
  int row, group_first, start[2], start_last;
  float top[2], sum[2];
  float out[DP / 2], s[BK / 2];
  uint32_t weights[BK / 16][4];

  __device__ __forceinline__ Rows(const Params& p, const Work& w, int group) : p(p) {
    const int t = threadIdx.x % 128;
    group_first = w.q0 + group * 64, row = group_first + t / 32 * 16 + t % 32 / 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      start[h] = sequence_start(p.cu, p.S, row + 8 * h);
      top[h] = -INFINITY, sum[h] = 0;
    }
    start_last = sequence_start(p.cu, p.S, group_first + 63);
  }

  __device__ __forceinline__ void scores(uint32_t q, uint32_t k) {
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < DP / 16; i++) Wgmma<T, BK, 0>::ss(s, by_features<BQ>(q, i), by_features<BK>(k, i), i > 0);
    wgmma_commit();
  }
  __device__ __forceinline__ void outputs(uint32_t v, int keep) {
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < BK / 16; i++) Wgmma<T, DP, 1>::rs(out, weights[i], by_rows<BK>(v, i), i > 0 ? 1 : keep);
    wgmma_commit();
  }

  /** Scores of keys k0.. become exp(score - top); returns by what sums so far must shrink. */
  __device__ __forceinline__ void softmax(int k0, float (&shrink)[2]) {
    const int lane = threadIdx.x % 32;
    float to_log2 = p.scale * LOG2E;
    if (p.softcap > 0) {
#pragma unroll
      for (int i = 0; i < BK / 2; i++) s[i] = p.softcap * tanh_exp(s[i] * (p.scale / p.softcap));
      to_log2 = LOG2E;
    }
    if (k0 + BK - 1 > group_first || k0 < start_last || (p.window > 0 && group_first + 63 - k0 >= p.window)) {
#pragma unroll
      for (int j = 0; j < BK / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int h = e / 2, key = k0 + j * 8 + lane % 4 * 2 + e % 2;
          if (!sees(row + 8 * h, key, start[h], p.window)) s[4 * j + e] = -INFINITY;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float best = top[h];
#pragma unroll
      for (int j = 0; j < BK / 8; j++) best = fmaxf(best, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
      best = fmaxf(best, __shfl_xor_sync(~0u, best, 1)), best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
      const float base = best == -INFINITY ? 0.0f : best * to_log2;
      shrink[h] = exp2f(top[h] * to_log2 - base);
      float part = 0;
#pragma unroll
      for (int j = 0; j < BK / 8; j++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) part += s[4 * j + e] = exp2f(s[4 * j + e] * to_log2 - base);
      sum[h] = sum[h] * shrink[h] + part, top[h] = best;
    }
  }
  __device__ __forceinline__ void keep_weights() {
#pragma unroll
    for (int i = 0; i < BK / 16; i++) as_operand<T>(weights[i], s, i);
  }
  __device__ __forceinline__ void scale_out(const float (&by)[2]) {
#pragma unroll
    for (int i = 0; i < DP / 2; i++) out[i] *= by[i / 2 % 2];
  }

  /** Divides by the sum of weights; writes lse. */
  __device__ __forceinline__ void finish(int head) {
    float by[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      sum[h] += __shfl_xor_sync(~0u, sum[h], 1), sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
      by[h] = sum[h] > 0 ? 1.0f / sum[h] : 0.0f;
      const float unit = p.softcap > 0 ? 1.0f : p.scale;
      if (threadIdx.x % 4 == 0 && row + 8 * h < p.N)
        p.lse[static_cast<size_t>(head) * p.N + row + 8 * h] = sum[h] > 0 ? top[h] * unit + logf(sum[h]) : 0.0f;
    }
    scale_out(by);
  }
};

template <class T, int DP> __device__ __forceinline__ void consume(const Params& p, uint8_t* smem, Barriers& b) {
  using S = Shape<DP>;
  const int group = threadIdx.x / 128 - 1;
  const bool leader = threadIdx.x % 128 == 0;
  const uint32_t base = shared_address(smem), q = base + group * 64 * 128;
  uint8_t* room = smem + (S::OWN_OUT ? S::OUT : 0) + group * 64 * 128;
  auto free = [&](uint64_t& bar) {
    if (leader) arrive(&bar);
  };
  int stage = 0, phase = 0, q_phase = 0;
  const Turn turn{group};
  turn.begin();
  for (int t = blockIdx.x; t < p.tiles * p.H; t += gridDim.x) {
    const Work w = work_at<S::BK>(p, t);
    Rows<T, DP> r(p, w, group);
    if (w.to > w.from) {
      float shrink[2];
      wait(&b.q_full, q_phase), q_phase ^= 1;
      wait(&b.k_full[stage], phase);
      r.scores(q, base + S::K0 + stage * S::KV);
      wgmma_wait<0>(), pin(r.s);
      free(b.k_empty[stage]);
      r.softmax((w.to - 1) * S::BK, shrink);
      r.keep_weights();
      int keep = 0;
      for (int k = w.to - 2; k >= w.from; k--) {
        const int last = stage, last_phase = phase;
        if (++stage == STAGES) stage = 0, phase ^= 1;
        wait(&b.k_full[stage], phase);
        turn.wait();
        r.scores(q, base + S::K0 + stage * S::KV);
        wait(&b.v_full[last], last_phase);
        r.outputs(base + S::V0 + last * S::KV, keep), keep = 1;
        turn.pass();
        wgmma_wait<1>(), pin(r.s);
        free(b.k_empty[stage]);
        r.softmax(k * S::BK, shrink);
        wgmma_wait<0>(), pin(r.out);
        free(b.v_empty[last]);
        r.scale_out(shrink);
        r.keep_weights();
      }
      if (S::OWN_OUT) free(b.q_empty);
      wait(&b.v_full[stage], phase);
      r.outputs(base + S::V0 + stage * S::KV, keep);
      wgmma_wait<0>(), pin(r.out);
      free(b.v_empty[stage]);
      if (++stage == STAGES) stage = 0, phase ^= 1;
    } else {
#pragma unroll
      for (int i = 0; i < DP / 2; i++) r.out[i] = 0;
    }
    r.finish(w.head);
    if (leader) store_wait_read<0>();
    named_barrier(1 + group, 128);
    put_rows<T, BQ, DP>(shared_address(room), r.out);
    fence_async();
    named_barrier(1 + group, 128);
    if (leader && r.group_first < p.N) {
#pragma unroll
      for (int i = 0; i < DP / 64; i++) store_3d(&p.out, room + i * BQ * 128, i * 64, w.head, r.group_first);
      store_commit();
    }
    if (!S::OWN_OUT && w.to > w.from && leader) store_wait_read<0>(), arrive(&b.q_empty);
  }
  if (leader) store_wait_read<0>();
}

template <class T, int DP> __global__ void __launch_bounds__(THREADS, 1) forward_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = Shape<DP>;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  Barriers& b = *reinterpret_cast<Barriers*>(smem + S::BARRIERS);
  if (threadIdx.x == 0) {
    barrier_init(&b.q_full, 1), barrier_init(&b.q_empty, 2);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(&b.k_full[i], 1), barrier_init(&b.k_empty[i], 2);
      barrier_init(&b.v_full[i], 1), barrier_init(&b.v_empty[i], 2);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x == 0) produce<DP>(p, smem, b);
  } else {
    registers_up<240>();
    consume<T, DP>(p, smem, b);
  }
#endif
}

template <class T, int DP> int run(const Attention& a) {
  using S = Shape<DP>;
  Params p{};
  p.lse = a.lse, p.cu = a.cu, p.N = a.N, p.H = a.H, p.K = a.K, p.S = a.S, p.window = a.o.window;
  p.tiles = static_cast<int>(blocks(a.N, BQ)), p.scale = a.o.scale, p.softcap = a.o.softcap;
  const bool ok = map_heads(&p.q, a.q, a.N, a.H, a.d, BQ) && map_heads(&p.k, a.k, a.N, a.K, a.d, S::BK) &&
                  map_heads(&p.v, a.v, a.N, a.K, a.d, S::BK) && map_heads(&p.out, a.out, a.N, a.H, a.d, 64);
  if (!ok) return fail(US_DEVICE, "Cannot run attention: the driver refused a tensor map");
  const cudaError_t e = cudaFuncSetAttribute(forward_kernel<T, DP>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::BYTES);
  if (e != cudaSuccess) return cuda_error("attention", e);
  const int need = p.tiles * a.H, most = multiprocessors();
  forward_kernel<T, DP><<<need < most ? need : most, THREADS, S::BYTES, stream()>>>(p);
  return launched("attention");
}

template <class T> int pick(const Attention& a) {
  return a.d <= 64 ? run<T, 64>(a) : a.d <= 128 ? run<T, 128>(a) : run<T, 256>(a);
}

}  // namespace

bool attention_sm90(const Attention& a, int& rc) {
  if (!has_sm90() || a.d % 8 || a.d > 256 || !aligned16(a.q, a.k, a.v, a.out)) return false;
  rc = a.dtype == BF16 ? pick<bf16>(a) : pick<f16>(a);
  return true;
}

}  // namespace us
