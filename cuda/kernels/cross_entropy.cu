// Softmax cross-entropy of one row of V logits a block: first pass the running maximum and sum, second pass the gradient
// over the logits in place. What of the row fits in shared memory is read once, the rest once more from the L2 cache; written
// once; bound by memory. Row: z' = t tanh(z/t) with a soft cap; L = (1-e)(lse - z'[y]) + e (lse - mean z') + zl lse^2.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int THREADS = 1024;

struct Loss { float softcap, smoothing, z; };

/** exp; for results in 16 bits by the chip's own exp2, to some 2 units of f32's last place. */
template <class T> __device__ __forceinline__ float exp_of(float x) {
  if constexpr (sizeof(T) == 4) return expf(x);
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

/** The first `held` logits of a row stay in shared memory between the passes. */
template <class T, int V, bool CAP>
__global__ void __launch_bounds__(THREADS)
cross_entropy_kernel(float* loss, T* logits, const int* target, const float* weight, size_t vocab, size_t held, Loss o) {
  extern __shared__ __align__(16) uint8_t room[];
  T* kept = reinterpret_cast<T*>(room);
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
  auto capped = [&](float z) { return CAP ? o.softcap * tanhf(z / o.softcap) : z; };
  const float at_target = capped(to_f(row[known ? y : 0]));
  float top = -INFINITY, sum = 0, all = 0;
  for (size_t i = threadIdx.x * V; i < vocab; i += THREADS * V) {
    float z[V], m = top;
    load<V>(row + i, z);
    if (i < held) store<V>(kept + i, z);
#pragma unroll
    for (int j = 0; j < V; j++) z[j] = capped(z[j]), m = fmaxf(m, z[j]), all += z[j];
    if (m > top) sum *= exp_of<T>(top - m), top = m;
#pragma unroll
    for (int j = 0; j < V; j++) sum += exp_of<T>(z[j] - top);
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
    load<V>((i < held ? kept : row) + i, z);  // each thread what it stored itself
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float c = capped(z[j]);
      float g = grow * exp_of<T>(c - lse) - w * (e + (i + j == static_cast<size_t>(y) ? 1 - o.smoothing : 0.0f));
      if (CAP) g *= 1 - (c / o.softcap) * (c / o.softcap);
      z[j] = known ? g : __int_as_float(0x7fffffff);
    }
    store<V>(row + i, z);
  }
}

template <class T, int V, bool CAP>
int run(const Ten& loss, const Ten& logits, const Ten& target, const Ten& weight, Loss o) {
  const size_t step = THREADS * V, most = (shared_limit() - 1024) / sizeof(T) / step * step;  // and 1 KB for the reductions
  const size_t held = V == 1 ? 0 : most < logits.cols ? most : logits.cols, bytes = held * sizeof(T);
  const auto kernel = cross_entropy_kernel<T, V, CAP>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (e != cudaSuccess) return cuda_error("cross_entropy", e);
  kernel<<<static_cast<unsigned>(logits.rows), THREADS, bytes, stream()>>>(loss.as<float>(), logits.as<T>(), target.as<int>(),
                                                                           weight.as<float>(), logits.cols, held, o);
  return launched("cross_entropy");
}

}  // namespace

int cross_entropy(const Ten& loss, const Ten& logits, const Ten& target, const Ten& weight, float softcap, float smoothing,
                  float z) {
  if (logits.rows == 0) return 0;
  const bool wide = logits.cols % 8 == 0 && aligned16(logits.p);
  const Loss o{softcap, smoothing, z};
  US_FLOAT(logits.dtype, T, US_WIDTH(wide, V, {
    if (softcap > 0) return run<T, V, true>(loss, logits, target, weight, o);
    return run<T, V, false>(loss, logits, target, weight, o);
  }));
  return 0;
}

}  // namespace us
