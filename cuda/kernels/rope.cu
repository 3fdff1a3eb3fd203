// Rotary position embedding (Su et al. 2021), rotate-half layout, in place: feature i pairs with i + rotary/2.
// (a, b) -> factor * (a cos - b sin, b cos + a sin), the angle sign * pos * freq. A thread computes one angle's sine and
// cosine and applies them to its share of the token's heads. Moves 2 N heads rotary elements, bound by memory.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

/** Blocks of 32 pairs x 8 heads; V pairs a thread. */
template <class T, int V>
__global__ void __launch_bounds__(256)
rope_kernel(T* x, const int* pos, const float* freqs, int heads, int d, int half, float sign, float factor) {
  const size_t n = blockIdx.x;
  const int lanes = half / V, groups = 256 / lanes, lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
  if (group >= groups) return;
  float c[V], s[V];
#pragma unroll
  for (int j = 0; j < V; j++) {
    sincosf(static_cast<float>(pos[n]) * freqs[lane * V + j], &s[j], &c[j]);
    s[j] *= sign * factor, c[j] *= factor;
  }
  for (int h = group; h < heads; h += groups) {
    T* row = x + (n * heads + h) * d + lane * V;
    float a[V], b[V];
    load<V>(row, a), load<V>(row + half, b);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float p = a[j] * c[j] - b[j] * s[j];
      b[j] = b[j] * c[j] + a[j] * s[j], a[j] = p;
    }
    store<V>(row, a), store<V>(row + half, b);
  }
}

}  // namespace

int rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor) {
  const int heads = static_cast<int>(x.shape[1]), d = static_cast<int>(x.shape[2]), half = static_cast<int>(freqs.numel);
  if (x.numel == 0 || half == 0) return 0;
  if (half > 256) return unsupported("rotary half", half);
  const bool wide = half % 8 == 0 && d % 8 == 0 && aligned16(x.p);
  US_FLOAT(x.dtype, T, US_WIDTH(wide, V,
    rope_kernel<T, V><<<static_cast<unsigned>(x.shape[0]), 256, 0, stream()>>>(x.as<T>(), pos.as<int>(), freqs.as<float>(),
                                                                               heads, d, half, sign, factor)));
  return launched("rope");
}

}  // namespace us
