// The end of a matrix product: alpha, beta, bias, and the store, for the engines without a tile store of their own.
#pragma once
#include "common.cuh"
#include "gemm.h"

namespace us {

__device__ __forceinline__ float finish(const Gemm& g, size_t m, size_t n, float sum) {
  float v[1] = {0.0f}, y = g.alpha * sum;
  if (g.beta != 0.0f) load_any<1>(g.c, g.c_type, m * g.ldc + n, v), y += g.beta * v[0];
  if (g.bias) load_any<1>(g.bias, g.bias_type, n, v), y += v[0];
  return y;
}

/** c[m,n] from its sum. */
__device__ __forceinline__ void put(const Gemm& g, size_t m, size_t n, float sum) {
  const float y = finish(g, m, n, sum);
  const size_t i = m * g.ldc + n;
  if (g.c_type == F32) static_cast<float*>(g.c)[i] = y;
  else if (g.c_type == BF16) static_cast<bf16*>(g.c)[i] = from_f<bf16>(y);
  else static_cast<f16*>(g.c)[i] = from_f<f16>(y);
}

}  // namespace us
