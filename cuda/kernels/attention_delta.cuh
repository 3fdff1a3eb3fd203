// delta, which the backward of the softmax needs: the sum of dOut * out over a row. One read of each.
#pragma once
#include "common.cuh"

namespace us {

/** The sum of x * y over the d values of a row, by LANES threads of eight values; 0 when it is not `inside`. All LANES call it. */
template <int LANES, class T> __device__ __forceinline__ float row_product(const T* x, const T* y, size_t row, int d, bool inside) {
  const int i = threadIdx.x % LANES * 8;
  float sum = 0;
  if (inside && i < d) {
    float a[8], b[8];
    load<8>(x + row * d + i, a), load<8>(y + row * d + i, b);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += a[j] * b[j];
  }
#pragma unroll
  for (int o = LANES / 2; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  return sum;
}

}  // namespace us
