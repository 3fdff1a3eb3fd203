// out[o] = || w[o,:] + scale * (B A)[o,:] ||, DoRA's norm (Liu et al. 2024, eq. 5); w of any type. One block a row, A
// (R x I) from L2: O I R multiply-adds and one read of w.
#include "../host/kernels.h"
#include "decode.cuh"

namespace us {
namespace {

constexpr int THREADS = 256;

template <int V>
__global__ void __launch_bounds__(THREADS)
row_norm_kernel(float* out, const void* w, int dtype, const float* a, const float* b, int R, size_t I, float scale) {
  const size_t o = blockIdx.x;
  float s = 0;
  for (size_t i = threadIdx.x * V; i < I; i += THREADS * V) {
    float x[V], low[V] = {};
    if constexpr (V == 8) decode8_any(w, dtype, o * I + i, x);
    else load_any<1>(w, dtype, o * I + i, x);
    for (int r = 0; r < R; r++) {
      const float br = b[o * R + r];
#pragma unroll
      for (int j = 0; j < V; j++) low[j] += br * a[r * I + i + j];
    }
#pragma unroll
    for (int j = 0; j < V; j++) x[j] += scale * low[j], s += x[j] * x[j];
  }
  s = block_sum<THREADS>(s);
  if (threadIdx.x == 0) out[o] = sqrtf(s);
}

}  // namespace

int row_norm(const Ten& out, const Ten& w, const Ten& a, const Ten& b, float scale) {
  if (w.rows == 0) return 0;
  const bool quant = is_packed(w.dtype);
  if (w.dtype > F16 && !quant) return unsupported("element type", w.dtype);
  if (quant && w.cols % 8) return unsupported("packed rows of length", static_cast<long>(w.cols));
  const bool wide = quant || (w.cols % 8 == 0 && aligned16(w.p));
  US_WIDTH(wide, V,
    row_norm_kernel<V><<<static_cast<unsigned>(w.rows), THREADS, 0, stream()>>>(
        out.as<float>(), w.p, w.dtype, a.as<float>(), b.as<float>(), static_cast<int>(a.shape[0]), w.cols, scale));
  return launched("row_norm");
}

}  // namespace us
