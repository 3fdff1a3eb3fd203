// Softmax cross-entropy of one row of V logits a block: first pass the running maximum and sum, second pass the gradient
// over the logits in place. Reads the row twice (the second time mostly from L2: 132 rows of 256 KB are in flight) and
// writes it once; bound by memory. Row: z' = t tanh(z/t) with a soft cap; L = (1-e)(lse - z'[y]) + e (lse - mean z') + zl lse^2.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int THREADS = 512;

struct Loss { float softcap, smoothing, z; };

template <class T, int V>
__global__ void __launch_bounds__(THREADS)
cross_entropy_kernel(float* loss, T* logits, const int* target, const float* weight, size_t vocab, Loss o) {
  const size_t n = blockIdx.x;
  T* row = logits + n * vocab;
  const float w = weight[n];
  if (w == 0.0f) {
    const float zero[V] = {};
    for (size_t i = threadIdx.x * V; i < vocab; i += THREADS * V) store<V>(row + i, zero);
    if (threadIdx.x == 0) loss[n] = 0.0f;
    return;
  }
  const int y = target[n];
  const bool known = y >= 0 && static_cast<size_t>(y) < vocab;
  auto capped = [&](float z) { return o.softcap > 0 ? o.softcap * tanhf(z / o.softcap) : z; };
  const float at_target = capped(to_f(row[known ? y : 0]));
  float top = -INFINITY, sum = 0, all = 0;
  for (size_t i = threadIdx.x * V; i < vocab; i += THREADS * V) {
    float z[V], m = top;
    load<V>(row + i, z);
#pragma unroll
    for (int j = 0; j < V; j++) z[j] = capped(z[j]), m = fmaxf(m, z[j]), all += z[j];
    if (m > top) sum *= expf(top - m), top = m;
#pragma unroll
    for (int j = 0; j < V; j++) sum += expf(z[j] - top);
  }
  const float peak = block_max<THREADS>(top);
  sum = block_sum<THREADS>(top == -INFINITY ? 0.0f : sum * expf(top - peak));
  const float lse = peak + logf(sum), e = o.smoothing / static_cast<float>(vocab);
  if (o.smoothing > 0) all = block_sum<THREADS>(all);
  if (threadIdx.x == 0) {
    float l = (1 - o.smoothing) * (lse - at_target) + o.z * lse * lse;
    if (o.smoothing > 0) l += o.smoothing * lse - e * all;
    loss[n] = known ? l : __int_as_float(0x7fffffff);
  }
  // every thread must have read the target's logit before its place is overwritten: the reductions above are the barrier
  const float grow = w * (1 + 2 * o.z * lse);
  for (size_t i = threadIdx.x * V; i < vocab; i += THREADS * V) {
    float z[V];
    load<V>(row + i, z);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float c = capped(z[j]);
      float g = grow * expf(c - lse) - w * (e + (i + j == static_cast<size_t>(y) ? 1 - o.smoothing : 0.0f));
      if (o.softcap > 0) g *= 1 - (c / o.softcap) * (c / o.softcap);
      z[j] = known ? g : __int_as_float(0x7fffffff);
    }
    store<V>(row + i, z);
  }
}

}  // namespace

int cross_entropy(const Ten& loss, const Ten& logits, const Ten& target, const Ten& weight, float softcap, float smoothing,
                  float z) {
  if (logits.rows == 0) return 0;
  const bool wide = logits.cols % 8 == 0 && aligned16(logits.p);
  US_FLOAT(logits.dtype, T, US_WIDTH(wide, V,
    cross_entropy_kernel<T, V><<<static_cast<unsigned>(logits.rows), THREADS, 0, stream()>>>(
        loss.as<float>(), logits.as<T>(), target.as<int>(), weight.as<float>(), logits.cols, Loss{softcap, smoothing, z})));
  return launched("cross_entropy");
}

}  // namespace us
