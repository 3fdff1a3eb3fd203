// Adapters of the products that follow, rounded by threads of a pass that have nothing else to do, or by a kernel of their own.
#pragma once
#include "common.cuh"
#include "gemm_sm90.h"

namespace us {

/** One of `threads` threads. */
template <class T> __device__ __forceinline__ void round_adapter(const Cast& x, size_t thread, size_t threads) {
  for (size_t i = thread * 8; i < x.count; i += threads * 8) {
    float v[8];
    load<8>(x.from + i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] *= x.factor;
    store<8>(static_cast<T*>(x.to) + i, v);
  }
}

}  // namespace us
