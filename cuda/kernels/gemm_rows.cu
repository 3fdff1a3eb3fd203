// A few rows of a (decoding: one a request) against the rows of a weight [N,K] in any format: a warp an output column, the
// weight read once, 16 bytes a lane, decoded in registers. Bound by the bytes of the weight.
#include "decode.cuh"
#include "gemm_epilogue.cuh"

namespace us {
namespace {

constexpr int WARPS = 8;

template <int DT> __device__ __forceinline__ void weight8(const void* b, size_t i, float (&o)[8]) {
  if constexpr (DT == F32) load<8>(static_cast<const float*>(b) + i, o);
  else if constexpr (DT == BF16) load<8>(static_cast<const bf16*>(b) + i, o);
  else if constexpr (DT == F16) load<8>(static_cast<const f16*>(b) + i, o);
  else decode8<DT>(b, i, o);
}

template <int DT, int ROWS> __global__ void __launch_bounds__(32 * WARPS) gemm_rows_kernel(Gemm g) {
  const size_t n = static_cast<size_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (n >= g.N) return;
  float acc[ROWS] = {};
#pragma unroll 4
  for (size_t k = lane * 8; k < g.K; k += 256) {
    float w[8];
    weight8<DT>(g.b, n * g.K + k, w);
#pragma unroll
    for (int m = 0; m < ROWS; m++)
      if (m < g.M) {
        float x[8];
        load_any<8>(g.a, g.a_type, m * g.K + k, x);  // a uniform branch: a is small beside the weight
#pragma unroll
        for (int j = 0; j < 8; j++) acc[m] = fmaf(w[j], x[j], acc[m]);
      }
  }
#pragma unroll
  for (int m = 0; m < ROWS; m++) {
    const float s = warp_sum(acc[m]);
    if (m < g.M && lane == m) put(g, m, n, s);
  }
}

template <int DT> int run(const Gemm& g) {
  const unsigned grid = blocks(g.N, WARPS);
  if (g.M == 1) gemm_rows_kernel<DT, 1><<<grid, 32 * WARPS, 0, stream()>>>(g);
  else gemm_rows_kernel<DT, GEMV_ROWS><<<grid, 32 * WARPS, 0, stream()>>>(g);
  return launched("product of few rows");
}

}  // namespace

int gemm_rows(const Gemm& g) {
  if (g.b_type == F32) return run<F32>(g);
  if (g.b_type == BF16) return run<BF16>(g);
  if (g.b_type == F16) return run<F16>(g);
  US_QUANT(g.b_type, DT, return run<DT>(g));
  return 0;
}

}  // namespace us
