// The exact engine: any float types and layouts, f32 multiply-adds, no TF32, a fixed order of sums. 64 x 64 of c a block,
// 4 x 4 a thread, 16 of K at a time through shared memory. It is for f32 runs, whose purpose is checking; arithmetic-bound
// at a fraction of the FFMA rate.
#include "gemm_epilogue.cuh"

namespace us {
namespace {

constexpr int TILE = 64, BK = 16, THREADS = 256;

/** s[k][i] = element (i, k) of an operand stored [I,K], or [K,I] when `by_k`; zero outside. */
__device__ __forceinline__ void load_tile(float (&s)[BK][TILE + 4], const void* p, int type, bool by_k, size_t i0, size_t k0,
                                          size_t I, size_t K) {
#pragma unroll
  for (int e = threadIdx.x; e < TILE * BK; e += THREADS) {
    const int i = by_k ? e % TILE : e / BK, k = by_k ? e / TILE : e % BK;
    const size_t gi = i0 + i, gk = k0 + k;
    float v[1] = {0.0f};
    if (gi < I && gk < K) load_any<1>(p, type, by_k ? gk * I + gi : gi * K + gk, v);
    s[k][i] = v[0];
  }
}

__global__ void __launch_bounds__(THREADS) gemm_f32_kernel(Gemm g) {
  __shared__ float as[BK][TILE + 4], bs[BK][TILE + 4];
  const size_t m0 = static_cast<size_t>(blockIdx.y) * TILE, n0 = static_cast<size_t>(blockIdx.x) * TILE;
  const int tm = threadIdx.x / 16 * 4, tn = threadIdx.x % 16 * 4;
  float acc[4][4] = {};
  for (size_t k0 = 0; k0 < g.K; k0 += BK) {
    load_tile(as, g.a, g.a_type, g.trans_a, m0, k0, g.M, g.K);
    load_tile(bs, g.b, g.b_type, !g.trans_b, n0, k0, g.N, g.K);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < BK; k++) {
      const float4 x = *reinterpret_cast<const float4*>(&as[k][tm]), y = *reinterpret_cast<const float4*>(&bs[k][tn]);
      const float xa[4] = {x.x, x.y, x.z, x.w}, ya[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] = fmaf(xa[i], ya[j], acc[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const size_t m = m0 + tm + i, n = n0 + tn + j;
      if (m < g.M && n < g.N) put(g, m, n, acc[i][j]);
    }
}

}  // namespace

int gemm_f32(const Gemm& g) {
  gemm_f32_kernel<<<dim3(blocks(g.N, TILE), blocks(g.M, TILE)), THREADS, 0, stream()>>>(g);
  return launched("f32 product");
}

}  // namespace us
