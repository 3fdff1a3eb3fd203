// The 16-bit engine of every chip from sm_80 on: mma.sync m16n8k16 with f32 sums, cp.async through three stages of shared
// memory, all four layouts. When the tiles are too few for
// the chip, K is split: each part writes f32 sums to scratch and a second launch adds them in order (the same bits always).
#include "gemm_epilogue.cuh"
#include "mma.cuh"

namespace us {
namespace {

constexpr int BK = 32, STAGES = 3;

/**
 * Fills a tile from rows r0.., columns c0.. of a matrix with `stride` elements from row to row; zero outside. FAST: whole
 * 16-byte chunks. Else element by element, `step` apart in a row: any size, alignment and layout.
 */
template <class T, int R, int W, int THREADS, bool FAST>
__device__ __forceinline__ void load_tile(uint32_t dst, uint16_t* dst_p, const T* p, size_t r0, size_t c0, size_t row_end,
                                          size_t col_end, size_t stride, size_t step) {
  using S = Tile<R, W>;
#pragma unroll
  for (int i = 0; i < (R * S::CHUNKS + THREADS - 1) / THREADS; i++) {
    const int e = threadIdx.x + i * THREADS, r = e / S::CHUNKS, c = e % S::CHUNKS;
    if ((R * S::CHUNKS) % THREADS && e >= R * S::CHUNKS) break;
    const size_t gr = r0 + r, gc = c0 + c * 8;
    const int at = S::chunk(r, c);
    if constexpr (FAST) {
      const bool in = gr < row_end && gc < col_end;
      copy16(dst + at * 16, in ? p + gr * stride + gc : p, in ? 16 : 0);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const bool in = gr < row_end && gc + j < col_end;
        reinterpret_cast<T*>(dst_p)[at * 8 + j] = in ? p[gr * stride + (gc + j) * step] : from_f<T>(0.0f);
      }
    }
  }
}

template <class T, int BM, int BN, int WM, int WN, bool TA, bool TB, bool FAST>
__global__ void __launch_bounds__((BM / WM) * (BN / WN) * 32) gemm_mma_kernel(Gemm g, float* part, size_t k_a_part) {
  constexpr int THREADS = (BM / WM) * (BN / WN) * 32, MT = WM / 16, NT = WN / 8;
  using A = std::conditional_t<TA, Tile<BK, BM>, Tile<BM, BK>>;
  using B = std::conditional_t<TB, Tile<BN, BK>, Tile<BK, BN>>;
  extern __shared__ __align__(128) uint8_t smem[];
  const uint32_t sa = shared_address(smem), sb = sa + STAGES * A::BYTES;
  uint16_t *pa = reinterpret_cast<uint16_t*>(smem), *pb = pa + STAGES * A::BYTES / 2;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
  const size_t m0 = static_cast<size_t>(blockIdx.y) * BM, n0 = static_cast<size_t>(blockIdx.x) * BN;
  const size_t k_from = blockIdx.z * k_a_part, k_to = min(k_from + k_a_part, g.K);
  const T *a = static_cast<const T*>(g.a), *b = static_cast<const T*>(g.b);

  auto fetch = [&](int stage, size_t k) {
    const uint32_t da = sa + stage * A::BYTES, db = sb + stage * B::BYTES;
    uint16_t *qa = pa + stage * A::BYTES / 2, *qb = pb + stage * B::BYTES / 2;
    const bool ka = !FAST && g.trans_a, kb = !FAST && !g.trans_b;  // stored with k as the rows, read as the other layout
    if constexpr (TA) load_tile<T, BK, BM, THREADS, FAST>(da, qa, a, k, m0, k_to, g.M, g.M, 1);
    else load_tile<T, BM, BK, THREADS, FAST>(da, qa, a, m0, k, g.M, k_to, ka ? 1 : g.K, ka ? g.M : 1);
    if constexpr (TB) load_tile<T, BN, BK, THREADS, FAST>(db, qb, b, n0, k, g.N, k_to, kb ? 1 : g.K, kb ? g.N : 1);
    else load_tile<T, BK, BN, THREADS, FAST>(db, qb, b, k, n0, k_to, g.N, g.N, 1);
  };

  float acc[MT][NT][4] = {};
  const int steps = k_to > k_from ? static_cast<int>((k_to - k_from + BK - 1) / BK) : 0;
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) fetch(s, k_from + s * BK);
    asm volatile("cp.async.commit_group;\n" ::);
  }
  for (int k = 0; k < steps; k++) {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 2));
    __syncthreads();
    if (k + STAGES - 1 < steps) fetch((k + STAGES - 1) % STAGES, k_from + (k + STAGES - 1) * BK);
    asm volatile("cp.async.commit_group;\n" ::);
    const uint32_t ta = sa + k % STAGES * A::BYTES, tb = sb + k % STAGES * B::BYTES;
#pragma unroll
    for (int kk = 0; kk < BK; kk += 16) {
      uint32_t fa[MT][4], fb[NT / 2][4];
#pragma unroll
      for (int i = 0; i < MT; i++) {
        if constexpr (TA) a_columns<A>(fa[i], ta, wm + i * 16, kk);
        else a_rows<A>(fa[i], ta, wm + i * 16, kk);
      }
#pragma unroll
      for (int j = 0; j < NT / 2; j++) {
        if constexpr (TB) b_rows<B>(fb[j], tb, wn + j * 16, kk);
        else b_columns<B>(fb[j], tb, wn + j * 16, kk);
      }
#pragma unroll
      for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++) mma<T>(acc[i][j], fa[i], fb[j / 2][(j & 1) * 2], fb[j / 2][(j & 1) * 2 + 1]);
    }
  }
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const size_t m = m0 + wm + i * 16 + (lane >> 2) + (e >> 1) * 8, n = n0 + wn + j * 8 + (lane & 3) * 2 + (e & 1);
        if (m < g.M && n < g.N) {
          if (part) part[(blockIdx.z * g.M + m) * g.N + n] = acc[i][j][e];
          else put(g, m, n, acc[i][j][e]);
        }
      }
}

__global__ void add_parts_kernel(Gemm g, const float* part, int parts) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, n = g.M * g.N;
  if (i >= n) return;
  float s = 0;
  for (int p = 0; p < parts; p++) s += part[p * n + i];
  put(g, i / g.N, i % g.N, s);
}

template <class T, int BM, int BN, int WM, int WN, bool TA, bool TB, bool FAST> int run(const Gemm& g) {
  constexpr int THREADS = (BM / WM) * (BN / WN) * 32, SHARED = STAGES * (BM + BN) * BK * 2;
  static_assert(SHARED <= 49152, "within what every chip gives without asking");
  const size_t tiles = static_cast<size_t>(blocks(g.N, BN)) * blocks(g.M, BM), most = blocks(g.K, BK * 4);
  size_t parts = tiles >= static_cast<size_t>(multiprocessors()) ? 1 : 2 * multiprocessors() / tiles;
  parts = parts > most ? most : parts;
  float* part = nullptr;
  size_t k_a_part = g.K;
  if (parts > 1) {
    k_a_part = (g.K + parts * BK - 1) / (parts * BK) * BK, parts = (g.K + k_a_part - 1) / k_a_part;
    part = static_cast<float*>(scratch(SCRATCH_PARTS, parts * g.M * g.N * sizeof(float)));
    if (!part) return US_MEMORY;
  }
  const dim3 grid(blocks(g.N, BN), blocks(g.M, BM), static_cast<unsigned>(parts > 1 ? parts : 1));
  gemm_mma_kernel<T, BM, BN, WM, WN, TA, TB, FAST><<<grid, THREADS, SHARED, stream()>>>(g, part, k_a_part);
  if (part) add_parts_kernel<<<blocks(g.M * g.N, 256), 256, 0, stream()>>>(g, part, static_cast<int>(parts));
  return launched("mma.sync product");
}

template <class T, bool TA, bool TB> int pick(const Gemm& g) {
  if (g.M <= 64 || g.N <= 64) return run<T, 64, 64, 32, 32, TA, TB, true>(g);
  return run<T, 128, 128, 64, 32, TA, TB, true>(g);
}

template <class T> int layout(const Gemm& g) {
  const bool fast = g.lda() % 8 == 0 && g.ldb() % 8 == 0 && aligned16(g.a, g.b);
  if (!fast || (g.trans_a && g.trans_b)) return run<T, 64, 64, 32, 32, false, true, false>(g);
  if (g.trans_a) return pick<T, true, false>(g);
  return g.trans_b ? pick<T, false, true>(g) : pick<T, false, false>(g);
}

}  // namespace

int gemm_mma(const Gemm& g) { return g.a_type == BF16 ? layout<bf16>(g) : layout<f16>(g); }

}  // namespace us
