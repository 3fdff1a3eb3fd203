// Attention backward on Hopper in one kernel and five products. A block owns 128 keys of a kv head and visits the queries of
// the group's heads, 64 at a time: two warpgroups of 64 keys recompute the weights from lse and sum dk and dv in registers.
// Their score gradients meet in shared memory, where each warpgroup multiplies them with half of the keys' features, a visit
// later, and adds that to dq's f32 sums in global memory. Blocks add to one tile of dq in turn, in an order fixed beforehand
// (attention_schedule.cuh): the first stores, the last writes dq. dk and dq may leave turned (RoPE's
// backward). delta = sum of dOut * out of a row; ds = w * (dOut v - delta).
#include "attention_sm90_bwd_once.cuh"

#include "attention_delta.cuh"
#include "gemm_sm90.h"

namespace us {
namespace {

using namespace sm90;

constexpr int THREADS = 384;  // a warpgroup of helpers, two that compute

// ---- products ----

/** A warpgroup's half of the features of ds^T k, 64 queries: a group of its own. */
template <class T, int DP> __device__ __forceinline__ void multiply_keys(float (&dq)[DP / 4], uint32_t ds, uint32_t keys) {
  wgmma_begin();
  Wgmma<T, DP / 2, 1, 1>::first(dq, operand(ds, 1024, 0), PanelOfKeys<DP>::by_rows(keys, 0));
#pragma unroll
  for (int i = 1; i < KEYS / 16; i++) Wgmma<T, DP / 2, 1, 1>::ss(dq, operand(ds + i * 2048, 1024, 0), PanelOfKeys<DP>::by_rows(keys, i), 1);
  wgmma_commit();
}

/** d = rows of k or v . rows_b over the features: a group of its own. */
template <class T, int DP, bool OF_K> __device__ __forceinline__ void multiply_features(float (&d)[QUERIES / 2], uint32_t a, uint32_t b) {
  auto rows = [a](int i) { return OF_K ? PanelOfKeys<DP>::by_features(a, i) : by_features<KEYS>(a, i); };
  wgmma_begin();
  Wgmma<T, QUERIES, 0>::first(d, rows(0), by_features<QUERIES>(b, 0));
#pragma unroll
  for (int i = 1; i < DP / 16; i++) Wgmma<T, QUERIES, 0>::ss(d, rows(i), by_features<QUERIES>(b, i), 1);
  wgmma_commit();
}

/** First of a thread's two keys, `key` and `key` + 8. */
__device__ __forceinline__ int own_key() { return threadIdx.x / 128 * 64 - 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4; }

/** Notes the ends of this thread's keys, and which query tiles see all keys of its warpgroup. */
__device__ __forceinline__ void note_ends(const Params& p, Common& c, int key_tile) {
  const int key = own_key(), k0 = key_tile * KEYS, group = threadIdx.x / 128 - 1, first = k0 + group * 64;
  named_barrier(2 + group, 128);  // all are past the last tile
  c.end[key] = sequence_end(p.cu, p.S, k0 + key), c.end[key + 8] = sequence_end(p.cu, p.S, k0 + key + 8);
  if (threadIdx.x % 128 == 0) {
    int end = sequence_end(p.cu, p.S, first);
    if (p.window > 0) end = min(end, first + p.window);
    c.clear[group][0] = (first + 63 + QUERIES - 1) / QUERIES, c.clear[group][1] = end / QUERIES;
  }
  named_barrier(2 + group, 128);
}

/** Query sees key when key <= query < end of key's sequence, and the window. `tile`: of queries, after the block's keys. */
__device__ __forceinline__ void mask(float (&s)[QUERIES / 2], const Params& p, const Common& c, int k0, int tile, int group, float unseen) {
  const int key = own_key(), from = k0 + key - tile * QUERIES - threadIdx.x % 4 * 2;  // key as a column of s, less the thread's first
  if (tile < c.clear[group][0]) {
#pragma unroll
    for (int i = 0; i < QUERIES / 2; i++)
      if (i / 4 * 8 + i % 2 - i / 2 % 2 * 8 < from) s[i] = unseen;
  }
  if (tile < c.clear[group][1]) return;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int to = c.end[key + 8 * h] - k0 - key;
    if (p.window > 0) to = min(to, p.window + 8 * h);
    to += from;
#pragma unroll
    for (int i = 2 * h; i < QUERIES / 2; i += i % 2 ? 3 : 1)
      if (i / 4 * 8 + i % 2 >= to) s[i] = unseen;
  }
}

/** In two steps, the first beside dOut v: weights from scores; with a soft cap its tanh. */
template <bool CAP> __device__ __forceinline__ void begin_weights(float (&s)[QUERIES / 2], const float* lse, const Params& p) {
  const float factor = CAP ? p.scale / p.softcap : p.scale * LOG2E;
#pragma unroll
  for (int i = 0; i < QUERIES / 2; i += 4) {
    const float2 l = *reinterpret_cast<const float2*>(lse + i * 2);
#pragma unroll
    for (int e = 0; e < 4; e++) s[i + e] = CAP ? tanh_exp(s[i + e] * factor) : exp2_fast(s[i + e] * factor - (e % 2 ? l.y : l.x));
  }
}

constexpr float UNSEEN = 2;  // no tanh

/** Weights and score gradients as operands. */
template <class T, bool CAP>
__device__ __forceinline__ void end_weights(uint32_t (&w)[QUERIES / 16][4], uint32_t (&ds)[QUERIES / 16][4], const float (&s)[QUERIES / 2],
                                            const float (&d)[QUERIES / 2], const float* lse, const Params& p) {
#pragma unroll
  for (int i = 0; i < QUERIES / 2; i += 2) {
    const float2 l = *reinterpret_cast<const float2*>(lse + i / 4 * 8), delta = *reinterpret_cast<const float2*>(lse + QUERIES + i / 4 * 8);
    float a = s[i], b = s[i + 1], slope_a = 1, slope_b = 1;
    if (CAP) {
      slope_a = 1 - a * a, slope_b = 1 - b * b;
      a = a == UNSEEN ? 0.0f : exp2_fast(p.softcap * LOG2E * a - l.x), b = b == UNSEEN ? 0.0f : exp2_fast(p.softcap * LOG2E * b - l.y);
    }
    w[i / 8][i / 2 % 4] = pack2<T>(a, b);
    ds[i / 8][i / 2 % 4] = pack2<T>(a * (d[i] - delta.x) * slope_a, b * (d[i + 1] - delta.y) * slope_b);
  }
}

/** A warpgroup's score gradients [64 keys, 64 queries] to its half of a slot. */
__device__ __forceinline__ void put_scores(uint32_t slot, const uint32_t (&ds)[QUERIES / 16][4]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 128 * 64 - 64 + threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int i = 0; i < QUERIES / 16; i++)
    store_matrices(slot + row * 128 + ((2 * i + lane / 16) ^ (row & 7)) * 16, ds[i][0], ds[i][1], ds[i][2], ds[i][3]);
}

/** This thread's rows of dk or dv from their sums. */
template <class T, int DP> __device__ __forceinline__ void write_rows(const Params& p, void* out, const float (&d)[DP / 2], int code, float factor) {
  const int key = code / p.K * KEYS + own_key();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (key + 8 * h >= p.N) continue;
    T* to = static_cast<T*>(out) + (static_cast<size_t>(key + 8 * h) * p.K + code % p.K) * p.d + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < DP / 8; i++)
      if (8 * i < p.d) *reinterpret_cast<uint32_t*>(to + 8 * i) = pack2<T>(d[4 * i + 2 * h] * factor, d[4 * i + 2 * h + 1] * factor);
  }
}

/** d += the rows' operand times 64 rows at `b` over the features: a group of its own. */
template <class T, int DP> __device__ __forceinline__ void multiply_queries(float (&d)[DP / 2], const uint32_t (&a)[QUERIES / 16][4], uint32_t b) {
  wgmma_begin();
#pragma unroll
  for (int i = 0; i < QUERIES / 16; i++) Wgmma<T, DP, 1>::rs(d, a[i], by_rows<QUERIES>(b, i), 1);
  wgmma_commit();
}

template <class T, int DP, bool CAP> __device__ __forceinline__ void consume(const Params& p, uint8_t* smem, Common& c) {
  using S = Shape<DP>;
  // by a reduction the compiler knows that a warp has one group, and keeps operands' descriptors in uniform registers: 8 % faster
  const int group = static_cast<int>(__reduce_max_sync(~0u, threadIdx.x / 128)) - 1, lane = threadIdx.x % 32;
  const bool leads = threadIdx.x % 128 == 0;
  const uint32_t base = shared_address(smem);
  uint32_t k = base + group * 64 * PanelOfKeys<DP>::WIDTH * 2, v = base + S::V + group * 64 * 128;
  const uint32_t half = base + group * PanelOfKeys<DP>::BYTES;  // of the keys' features
  int n = 0;
  for (int round = 0; round < p.plan.rounds; round++) {
    const int code = p.plan.code(round);
    if (code < 0) break;
    note_ends(p, c, code / p.K);
    float dk[DP / 2], dv[DP / 2];
#pragma unroll
    for (int i = 0; i < DP / 2; i++) dk[i] = dv[i] = 0;
    const int to = n + p.plan.length(code / p.K) * p.plan.G, k0 = code / p.K * KEYS;
    auto stage_of = [&](int n) { return base + S::RING + at<STAGES>(n) * 2 * S::QO; };
    auto slot_of = [&](int n) { return base + S::SCORES + at<SLOTS>(n) * S::DS; };
    float s[QUERIES / 2], dq[DP / 4];
    wait(&c.keys, round & 1);
    wait(&c.full[at<STAGES>(n)], parity<STAGES>(n));
    multiply_features<T, DP, true>(s, k, stage_of(n));
    bool first = true;
    for (; n < to; n++, first = false) {
      const uint32_t q = stage_of(n), dout = q + S::QO;
      asm volatile("" : "+r"(k), "+r"(v));  // else 24 descriptors are kept over the loop, and spilt
      const float* lse = reinterpret_cast<const float*>(smem + S::ROW + at<STAGES>(n) * S::ROWS) + lane % 4 * 2;
      uint32_t w[QUERIES / 16][4], ds[QUERIES / 16][4];
      {
        float d[QUERIES / 2];
        wgmma_wait<0>(), pin(s);  // at the head of the loop nothing may be under way, or ptxas runs all products one by one
        multiply_features<T, DP, false>(d, v, dout);
        begin_weights<CAP>(s, lse, p);
        const int tile = c.visit[at<TOLD>(n)].tile;
        if (tile < c.clear[group][0] || tile >= c.clear[group][1]) mask(s, p, c, k0, tile, group, CAP ? UNSEEN : 0.0f);
        wgmma_wait<0>(), pin(d);
        end_weights<T, CAP>(w, ds, s, d, lse, p);
      }
      multiply_queries<T, DP>(dv, w, dout), multiply_queries<T, DP>(dk, ds, q);
      // dq of the visit before, of which the other warpgroup's half is there by now; a tile's first makes one for nothing
      if (!first) wait(&c.scores[at<SLOTS>(n - 1)], parity<SLOTS>(n - 1));
      multiply_keys<T, DP>(dq, slot_of(n - 1), half);
      wait(&c.taken[at<SLOTS>(n)], parity<SLOTS>(n) ^ 1);
      put_scores(slot_of(n), ds);
      fence_async();
      __syncwarp();
      if (lane == 0) arrive(&c.scores[at<SLOTS>(n)]);
      wgmma_wait<1>(), pin(dv), pin(dk);
      // every thread, since each reads lse and delta there: racecheck knows no other way, and it costs nothing
      arrive(&c.empty[at<STAGES>(n)]);
      // the next visit's scores, under way while dq is added; a tile's last makes some for nothing
      if (n + 1 < to) wait(&c.full[at<STAGES>(n + 1)], parity<STAGES>(n + 1));
      multiply_features<T, DP, true>(s, k, stage_of(n + 1));
      wgmma_wait<1>(), pin(dq);
      if (!first) {
        if (leads) arrive(&c.taken[at<SLOTS>(n - 1)]);
        add_dq<T, DP>(p, c, dq, n - 1, group);
      }
    }
    wait(&c.scores[at<SLOTS>(n - 1)], parity<SLOTS>(n - 1));
    multiply_keys<T, DP>(dq, slot_of(n - 1), half);
    wgmma_wait<0>(), pin(dq), pin(s);
    if (leads) arrive(&c.taken[at<SLOTS>(n - 1)]), arrive(&c.keys_free);
    add_dq<T, DP>(p, c, dq, n - 1, group);
    const int tile = p.plan.code(round);  // read again: a register kept over the loop would be spilt
    write_rows<T, DP>(p, p.dv, dv, tile, 1.0f);
    if (p.turn_k.table) turn_rows<DP, DP / 2>(dk, p.turn_k, tile / p.K * KEYS + own_key(), p.N, 0);
    write_rows<T, DP>(p, p.dk, dk, tile, p.scale);
  }
}

template <class T, int DP, bool CAP> __global__ void __launch_bounds__(THREADS, 1) backward_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t smem[];
  Common& c = *reinterpret_cast<Common*>(smem + Shape<DP>::COMMON);
  if (threadIdx.x == 0) {
    barrier_init(&c.keys, 1), barrier_init(&c.keys_free, 2);
    for (int i = 0; i < STAGES; i++) barrier_init(&c.full[i], 1), barrier_init(&c.empty[i], THREADS - 128);
    for (int i = 0; i < SLOTS; i++) {
      barrier_init(&c.scores[i], 8), barrier_init(&c.taken[i], 2);
      barrier_init(&c.granted[i], 1), barrier_init(&c.added[i], 8), barrier_init(&c.noted[i], 1);
    }
    for (int i = 0; i < TOLD; i++) barrier_init(&c.told[i], 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x < 32) load_queries<DP>(p, smem, c);
    else if (threadIdx.x == 32) load_keys<DP>(p, smem, c);
    else if (threadIdx.x == 64) keep_order<true>(p, c);
    else if (threadIdx.x == 96) keep_order<false>(p, c);
  } else {
    registers_up<240>();
    consume<T, DP, CAP>(p, smem, c);
  }
#endif
}

// ---- before it: delta, lse and the schedule ----

/** The schedule in block 0; elsewhere rows [H][visits][2][QUERIES], LANES threads of eight features a row, and turns of 0. */
template <class T, int LANES>
__global__ void __launch_bounds__(256) prepare_kernel(float* rows, unsigned* turns, const T* dout, const T* out, const float* lse,
                                                      const int* cu, Schedule s, int S, int window, int H, int d) {
  if (blockIdx.x == 0) return make_schedule(s, cu, S, window);
  const size_t row = static_cast<size_t>(blockIdx.x - 1) * (256 / LANES) + threadIdx.x / LANES;
  const int n = static_cast<int>(row / H), h = static_cast<int>(row % H);
  const float sum = row_product<LANES>(dout, out, row, d, n < s.N);
  if (threadIdx.x % LANES != 0 || n >= s.visits * QUERIES) return;
  const size_t tile = static_cast<size_t>(h) * s.visits + n / QUERIES;
  float* to = rows + tile * 2 * QUERIES + n % QUERIES;
  to[0] = n < s.N ? lse[static_cast<size_t>(h) * s.N + n] * LOG2E : 0.0f, to[QUERIES] = sum;
  if (n % QUERIES == 0) turns[tile] = 0;
}

// ---- launches ----

/** All blocks at once, since they wait for one another. */
template <class Kernel> int launch_together(const char* what, Kernel kernel, Params& p, int bytes) {
  cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (e != cudaSuccess) return cuda_error("attention_bwd", e);
  void* args[] = {&p};
  e = cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(p.plan.blocks), dim3(THREADS), args, bytes, stream());
  return e == cudaSuccess ? launched(what) : cuda_error("attention_bwd", e);
}

template <class T, int DP> int run(const Attention& a) {
  Params p{};
  p.dq = a.dq, p.dk = a.dk, p.dv = a.dv, p.cu = a.cu, p.N = a.N, p.H = a.H, p.K = a.K, p.d = a.d, p.S = a.S, p.window = a.o.window;
  p.scale = a.o.scale, p.softcap = a.o.softcap, p.turn_q = a.turn_q, p.turn_k = a.turn_k;
  Schedule& s = p.plan;
  s.N = a.N, s.K = a.K, s.G = a.H / a.K;
  s.tiles = static_cast<int>(blocks(a.N, KEYS)), s.visits = static_cast<int>(blocks(a.N, QUERIES));
  const int all = s.tiles * a.K;
  s.blocks = multiprocessors();
  s.rounds = (all + s.blocks - 1) / s.blocks, s.span = 1;
  while (s.span * a.K <= s.blocks) s.span *= 2;  // two rounds: then what is added to lies in the L2 cache
  const size_t tiles = static_cast<size_t>(a.H) * s.visits, sums = tiles * QUERIES * DP * 4, rows = tiles * 2 * QUERIES * 4;
  char* room = static_cast<char*>(scratch(SCRATCH_PARTS, sums + rows + tiles * 4 + s.ints() * 4));
  if (!room) return US_MEMORY;
  p.sums = reinterpret_cast<float4*>(room), p.rows = reinterpret_cast<float*>(room + sums), p.turns = reinterpret_cast<unsigned*>(room + sums + rows);
  s.place(reinterpret_cast<int*>(room + sums + rows + tiles * 4));
  const bool ok = map_heads(&p.q, a.q, a.N, a.H, a.d, QUERIES) && map_heads(&p.dout, a.dout, a.N, a.H, a.d, QUERIES) &&
                  map_heads(&p.k, a.k, a.N, a.K, a.d, KEYS, DP / 4) && map_heads(&p.v, a.v, a.N, a.K, a.d, KEYS);
  if (!ok) return fail(US_DEVICE, "Cannot run attention_bwd: the driver refused a tensor map");
  constexpr int LANES = DP / 8;
  prepare_kernel<T, LANES><<<1 + blocks(static_cast<size_t>(s.visits) * QUERIES * a.H, 256 / LANES), 256, 0, stream()>>>(
      const_cast<float*>(p.rows), p.turns, static_cast<const T*>(a.dout), static_cast<const T*>(a.out), a.lse, a.cu, s, a.S, a.o.window, a.H, a.d);
  if (const int rc = launched("attention_bwd delta")) return rc;
  if (a.o.softcap > 0) return launch_together("attention_bwd", backward_kernel<T, DP, true>, p, Shape<DP>::BYTES);
  return launch_together("attention_bwd", backward_kernel<T, DP, false>, p, Shape<DP>::BYTES);
}

template <class T> int pick(const Attention& a) { return a.d <= 64 ? run<T, 64>(a) : run<T, 128>(a); }

}  // namespace

bool fits_sm90_bwd_once(const Attention& a) {
  if (!has_sm90() || a.d % 8 || a.d > 128 || !aligned16(a.q, a.k, a.v, a.out, a.dout, a.dq, a.dk, a.dv)) return false;
  // in one round the longest tile decides: batch 1 of 2048 tokens and 8 kv heads is slower so than in two kernels
  return static_cast<int>(blocks(a.N, KEYS)) * a.K > multiprocessors() && multiprocessors() <= MOST_BLOCKS;
}

bool attention_sm90_bwd_once(const Attention& a, int& rc) {
  if (!fits_sm90_bwd_once(a)) return false;
  rc = a.dtype == BF16 ? pick<bf16>(a) : pick<f16>(a);
  return true;
}

}  // namespace us
