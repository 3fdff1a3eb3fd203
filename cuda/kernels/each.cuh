// A function over the elements of an array, V at a time.
#pragma once
#include "common.cuh"

namespace us {

/** f(i) for i = 0, V, 2V, ... below n. */
template <int V, class F> __global__ void __launch_bounds__(256) each_kernel(size_t n, F f) {
  const size_t i = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) * V;
  if (i < n) f(i);
}
template <int V, class F> int each(const char* op, size_t n, F f) {
  if (n == 0) return 0;
  each_kernel<V><<<blocks(n, size_t{256} * V), 256, 0, stream()>>>(n, f);
  return launched(op);
}

}  // namespace us
