// Rotary position embedding (Su et al. 2021), rotate-half layout, in place: feature i pairs with i + rotary/2.
// (a, b) -> factor * (a cos - b sin, b cos + a sin), the angle sign * pos * freq. A block computes the sines and cosines of a
// few tokens once, then turns all their heads. Moves 2 N heads rotary elements, bound by memory. On Hopper it mostly joins the
// product that makes x (cuda/host/pending_rope.cpp), which reads sines and cosines from a table.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int THREADS = 256;

template <class T, int V>
__global__ void __launch_bounds__(THREADS)
rope_kernel(T* x, const int* pos, const float* freqs, int N, int heads, int d, int half, float sign, float factor) {
  __shared__ float cosines[THREADS], sines[THREADS];
  const int tokens = THREADS / half, n0 = blockIdx.x * tokens, mine = min(tokens, N - n0), t = threadIdx.x;
  if (t < mine * half) {
    sincosf(static_cast<float>(pos[n0 + t / half]) * freqs[t % half], &sines[t], &cosines[t]);
    sines[t] *= sign * factor, cosines[t] *= factor;
  }
  __syncthreads();
  const int pieces = half / V, a_token = heads * pieces;
  for (int i = t; i < mine * a_token; i += THREADS) {
    const int token = i / a_token, h = i % a_token / pieces, p = i % pieces * V, at = token * half + p;
    T* row = x + (static_cast<size_t>(n0 + token) * heads + h) * d + p;
    float a[V], b[V];
    load<V>(row, a), load<V>(row + half, b);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float c = cosines[at + j], s = sines[at + j], turned = a[j] * c - b[j] * s;
      b[j] = b[j] * c + a[j] * s, a[j] = turned;
    }
    store<V>(row, a), store<V>(row + half, b);
  }
}

__global__ void __launch_bounds__(THREADS)
table_kernel(float2* table, const int* pos, const float* freqs, size_t count, int half, float factor) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= count) return;
  float s, c;
  sincosf(static_cast<float>(pos[i / half]) * freqs[i % half], &s, &c);
  table[i] = make_float2(c * factor, s * factor);
}

}  // namespace

int rope_table(float* table, const Ten& pos, const Ten& freqs, float factor) {
  const size_t count = pos.numel * freqs.numel;
  table_kernel<<<blocks(count, THREADS), THREADS, 0, stream()>>>(reinterpret_cast<float2*>(table), pos.as<int>(), freqs.as<float>(), count,
                                                                 static_cast<int>(freqs.numel), factor);
  return launched("rope table");
}

int rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor) {
  const int N = static_cast<int>(x.shape[0]), heads = static_cast<int>(x.shape[1]), d = static_cast<int>(x.shape[2]);
  const int half = static_cast<int>(freqs.numel);
  if (x.numel == 0 || half == 0) return US_OK;
  if (half > THREADS) return unsupported("rotary half", half);
  const bool wide = half % 8 == 0 && d % 8 == 0 && aligned16(x.p);
  US_FLOAT(x.dtype, T, US_WIDTH(wide, V,
    rope_kernel<T, V><<<blocks(N, THREADS / half), THREADS, 0, stream()>>>(x.as<T>(), pos.as<int>(), freqs.as<float>(), N, heads,
                                                                          d, half, sign, factor)));
  return launched("rope");
}

}  // namespace us
