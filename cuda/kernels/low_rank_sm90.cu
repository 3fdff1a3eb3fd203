// The thin products of LoRA on Hopper: the wide matrix comes through six stages of TMA, so that some 80 KB a multiprocessor
// are always under way, and the arithmetic is a few small wgmmas a stage. One producer warp; thin: one warpgroup with 64 rows;
// tall: two with 64 columns each. Adapters come rounded to 16 bits. Bound by reading the wide matrix once.
#include "low_rank.h"

#include "gemm_sm90.h"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace {

using namespace sm90;

constexpr int STAGES = 6, PANEL = 64 * 64 * 2;

// ---- x A^T, dy B: 64 rows a block, 128 of K a stage ----

struct ThinMaps { CUtensorMap a, b[MAX_SHARING]; };
struct ThinParams {
  ThinMaps map[MAX_THIN];
  Thin p[MAX_THIN];
  int M;
};

/** COUNT matrices b of rank R: [R,K], or [K,R] when BY_K. */
template <class T, int R, int COUNT, bool BY_K> __global__ void __launch_bounds__(160) thin_kernel(const __grid_constant__ ThinParams q) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int B_HALF = 64 * R * 2, STAGE = 2 * PANEL + COUNT * 2 * B_HALF;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint64_t *full = reinterpret_cast<uint64_t*>(smem + STAGES * STAGE), *empty = full + STAGES;
  const Thin& g = q.p[blockIdx.y];
  const ThinMaps& map = q.map[blockIdx.y];
  const int K = static_cast<int>(g.K), m0 = blockIdx.x * 64;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) barrier_init(&full[i], 1), barrier_init(&empty[i], 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x == 128) {
      int stage = 0, phase = 0;
      for (int k = 0; k < K; k += 128) {
        wait(&empty[stage], phase ^ 1);
        uint8_t *a = smem + stage * STAGE, *b = a + 2 * PANEL;
        expect_bytes(&full[stage], STAGE);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          load_2d(a + h * PANEL, &map.a, &full[stage], k + h * 64, m0);
#pragma unroll
          for (int i = 0; i < COUNT; i++) {
            uint8_t* to = b + (i * 2 + h) * B_HALF;
            if constexpr (BY_K) load_2d(to, &map.b[i], &full[stage], 0, k + h * 64);
            else load_2d(to, &map.b[i], &full[stage], k + h * 64, 0);
          }
        }
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }
  float acc[COUNT][R / 2];
#pragma unroll
  for (int i = 0; i < COUNT; i++)
#pragma unroll
    for (int j = 0; j < R / 2; j++) acc[i][j] = 0;
  int stage = 0, phase = 0;
  for (int k = 0; k < K; k += 128) {
    wait(&full[stage], phase);
    const uint32_t a = shared_address(smem + stage * STAGE), b = a + 2 * PANEL;
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
      for (int s = 0; s < 8; s++) {
        const uint32_t half = b + (i * 2 + s / 4) * B_HALF;
        const uint64_t da = operand(a + s / 4 * PANEL + s % 4 * 32, 1024, 0);
        if constexpr (BY_K) Wgmma<T, R, 1>::ss(acc[i], da, narrow_operand<R>(half + s % 4 * 16 * R * 2), 1);
        else Wgmma<T, R, 0>::ss(acc[i], da, operand(half + s % 4 * 32, 1024, 0), 1);
      }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < COUNT; i++) pin(acc[i]);
    if (threadIdx.x == 0) arrive(&empty[stage]);
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  const int lane = threadIdx.x % 32, row = m0 + threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < COUNT; i++)
#pragma unroll
    for (int j = 0; j < R / 8; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if (row + 8 * h >= q.M) continue;
        const size_t at = static_cast<size_t>(row + 8 * h) * R + j * 8 + lane % 4 * 2;
        const uint32_t word = pack2<T>(g.alpha[i] * acc[i][4 * j + 2 * h], g.alpha[i] * acc[i][4 * j + 2 * h + 1]);
        if (g.c[i]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.c[i]) + at) = word;
        if (g.copy[i]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.copy[i]) + at) = word;
        if (!g.scaled[i]) continue;
        const float f = g.alpha[i] * g.stat[2 * (row + 8 * h) + 1];
        *reinterpret_cast<uint32_t*>(static_cast<T*>(g.scaled[i]) + at) = pack2<T>(f * acc[i][4 * j + 2 * h], f * acc[i][4 * j + 2 * h + 1]);
      }
#endif
}

template <class T, int R, int COUNT, bool BY_K> int launch_thin(const ThinParams& p, int count) {
  constexpr int SHARED = STAGES * (2 * PANEL + COUNT * 4 * 64 * R) + STAGES * 16 + 1024;
  const cudaError_t e = cudaFuncSetAttribute(thin_kernel<T, R, COUNT, BY_K>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  thin_kernel<T, R, COUNT, BY_K><<<dim3(blocks(p.M, 64), count), 160, SHARED, stream()>>>(p);
  return launched("thin products");
}

template <class T, bool BY_K> int pick_thin(const ThinParams& p, int count) {
  const int r = p.p[0].r, n = p.p[0].count;
  if (r == 64) return launch_thin<T, 64, 1, BY_K>(p, count);
  if (r == 32) return n == 2 ? launch_thin<T, 32, 2, BY_K>(p, count) : launch_thin<T, 32, 1, BY_K>(p, count);
  return n == 3 ? launch_thin<T, 16, 3, BY_K>(p, count) : n == 2 ? launch_thin<T, 16, 2, BY_K>(p, count) : launch_thin<T, 16, 1, BY_K>(p, count);
}

// ---- dA, dB: 128 columns and a share of the tokens a block, 64 tokens a stage ----

struct TallMaps { CUtensorMap wide, thin[MAX_SHARING]; };
struct TallParams {
  TallMaps map[MAX_TALL];
  TallBatch batch;
};

template <class T, int R, int COUNT> __global__ void __launch_bounds__(288) tall_kernel(const __grid_constant__ TallParams q) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int B_BYTES = 64 * R * 2, STAGE = 2 * PANEL + COUNT * B_BYTES;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint64_t *full = reinterpret_cast<uint64_t*>(smem + STAGES * STAGE), *empty = full + STAGES;
  int at = 0;
  while (at + 1 < q.batch.count && static_cast<int>(blockIdx.x) >= q.batch.p[at + 1].first_block) at++;
  const Tall& g = q.batch.p[at];
  const TallMaps& map = q.map[at];
  const int w0 = (blockIdx.x - g.first_block) * 128, n0 = blockIdx.y * static_cast<int>(q.batch.share);
  const int n1 = min(n0 + static_cast<int>(q.batch.share), static_cast<int>(q.batch.N));
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) barrier_init(&full[i], 1), barrier_init(&empty[i], 2);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= 256) {
    if (threadIdx.x == 256) {
      int stage = 0, phase = 0;
      for (int n = n0; n < n1; n += 64) {
        wait(&empty[stage], phase ^ 1);
        uint8_t *a = smem + stage * STAGE, *b = a + 2 * PANEL;
        expect_bytes(&full[stage], STAGE);
        load_2d(a, &map.wide, &full[stage], w0, n), load_2d(a + PANEL, &map.wide, &full[stage], w0 + 64, n);
#pragma unroll
        for (int i = 0; i < COUNT; i++) load_2d(b + i * B_BYTES, &map.thin[i], &full[stage], 0, n);
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }
  const int group = threadIdx.x / 128;
  float acc[COUNT][R / 2];
#pragma unroll
  for (int i = 0; i < COUNT; i++)
#pragma unroll
    for (int j = 0; j < R / 2; j++) acc[i][j] = 0;
  int stage = 0, phase = 0;
  for (int n = n0; n < n1; n += 64) {
    wait(&full[stage], phase);
    const uint32_t base = shared_address(smem + stage * STAGE), a = base + group * PANEL, b = base + 2 * PANEL;
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < COUNT; i++)
#pragma unroll
      for (int s = 0; s < 4; s++)
        Wgmma<T, R, 1, 1>::ss(acc[i], operand(a + s * 2048, 1024, 0), narrow_operand<R>(b + i * B_BYTES + s * 16 * R * 2), 1);
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < COUNT; i++) pin(acc[i]);
    if (threadIdx.x % 128 == 0) arrive(&empty[stage]);
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  const int lane = threadIdx.x % 32, row = w0 + group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const size_t size = g.W * R;
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    float* part = g.part + (blockIdx.y * COUNT + i) * size;
#pragma unroll
    for (int j = 0; j < R / 2; j++) {
      const size_t w = row + j / 2 % 2 * 8, c = j / 4 * 8 + lane % 4 * 2 + j % 2;
      if (w < g.W) part[g.by_rank ? c * g.W + w : w * R + c] = acc[i][j];
    }
  }
#endif
}

template <class T, int R, int COUNT> int launch_tall(TallParams& p) {
  constexpr int SHARED = STAGES * (2 * PANEL + COUNT * 64 * R * 2) + STAGES * 16 + 1024;
  const cudaError_t e = cudaFuncSetAttribute(tall_kernel<T, R, COUNT>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  if (!place_shares(p.batch, multiprocessors())) return US_MEMORY;
  tall_kernel<T, R, COUNT><<<dim3(p.batch.blocks, p.batch.shares), 288, SHARED, stream()>>>(p);
  return add_shares(p.batch);
}

template <class T> int pick_tall(TallParams& p) {
  const int r = p.batch.p[0].r, n = p.batch.p[0].count;
  if (r == 64) return launch_tall<T, 64, 1>(p);
  if (r == 32) return n == 2 ? launch_tall<T, 32, 2>(p) : launch_tall<T, 32, 1>(p);
  return n == 3 ? launch_tall<T, 16, 3>(p) : n == 2 ? launch_tall<T, 16, 2>(p) : launch_tall<T, 16, 1>(p);
}

int no_map() { return fail(US_DEVICE, "Cannot run matmul: the driver refused a tensor map"); }

}  // namespace

bool thin_scales(const Thin& t) { return thin_fits_sm90(t); }

bool thin_fits_sm90(const Thin& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.beta == 0.0f && t.K >= 128; }

int run_thin_sm90(int dtype, bool by_k, size_t M, const Thin* list, int count) {
  ThinParams p{};
  p.M = static_cast<int>(M);
  for (int i = 0; i < count; i++) {
    const Thin& t = p.p[i] = list[i];
    bool ok = map_2d(&p.map[i].a, t.a, M, t.K, 64);
    for (int j = 0; j < t.count; j++)
      ok = ok && (by_k ? map_box(&p.map[i].b[j], t.b[j], t.K, t.r, 64, t.r) : map_2d(&p.map[i].b[j], t.b[j], t.r, t.K, t.r));
    if (!ok) return no_map();
  }
  if (dtype == BF16) return by_k ? pick_thin<bf16, true>(p, count) : pick_thin<bf16, false>(p, count);
  return by_k ? pick_thin<f16, true>(p, count) : pick_thin<f16, false>(p, count);
}

bool tall_fits_sm90(const Tall& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.W >= 64; }

int run_tall_sm90(int dtype, size_t N, const Tall* list, int count) {
  TallParams p{};
  p.batch.N = N, p.batch.count = count;
  for (int i = 0; i < count; i++) {
    const Tall& t = p.batch.p[i] = list[i];
    bool ok = map_2d(&p.map[i].wide, t.wide, N, t.W, 64);
    for (int j = 0; j < t.count; j++) ok = ok && map_box(&p.map[i].thin[j], t.thin[j], N, t.r, 64, t.r);
    if (!ok) return no_map();
  }
  return dtype == BF16 ? pick_tall<bf16>(p) : pick_tall<f16>(p);
}

}  // namespace us
