// Gradient norm, clip factor and AdamW (Loshchilov & Hutter 2019), over f32 parameters; all that changes from step to
// step is read from device memory, so a captured step stays valid. Bound by memory: AdamW moves 28 bytes a parameter.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int THREADS = 256, MAX_PARTS = 1024;

__global__ void __launch_bounds__(THREADS) square_parts_kernel(float* part, const float* g, size_t n) {
  float s = 0;
  for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += static_cast<size_t>(gridDim.x) * THREADS)
    s += g[i] * g[i];
  s = block_sum<THREADS>(s);
  if (threadIdx.x == 0) part[blockIdx.x] = s;
}

__global__ void __launch_bounds__(THREADS) add_parts_kernel(float* out, const float* part, int parts) {
  float s = 0;
  for (int i = threadIdx.x; i < parts; i += THREADS) s += part[i];
  s = block_sum<THREADS>(s);
  if (threadIdx.x == 0) out[0] += s;
}

__global__ void clip_factor_kernel(float* hyper, const float* sum_sq, float max_norm) {
  hyper[7] = max_norm > 0 ? fminf(1.0f, max_norm / (sqrtf(sum_sq[0]) + 1e-6f)) : 1.0f;
}

/** hyper: lr, b1, b2, eps, weight decay, 1-b1^t, 1-b2^t, clip factor. */
__global__ void __launch_bounds__(THREADS)
adamw_kernel(float* p, const float* g, float* m, float* v, const float* hyper, size_t n) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  const float lr = hyper[0], b1 = hyper[1], b2 = hyper[2], eps = hyper[3], wd = hyper[4], c1 = hyper[5], c2 = hyper[6];
  const float d = g[i] * hyper[7];
  const float mi = b1 * m[i] + (1 - b1) * d, vi = b2 * v[i] + (1 - b2) * d * d;
  m[i] = mi, v[i] = vi;
  p[i] = p[i] * (1 - lr * wd) - lr * (mi / c1) / (sqrtf(vi / c2) + eps);
}

}  // namespace

int sum_squares(const Ten& out, const Ten& g) {
  if (g.numel == 0) return 0;
  const unsigned parts = min(blocks(g.numel, THREADS * 8), static_cast<unsigned>(MAX_PARTS));
  float* part = static_cast<float*>(scratch(SCRATCH_PARTS, MAX_PARTS * sizeof(float)));
  if (!part) return US_MEMORY;
  square_parts_kernel<<<parts, THREADS, 0, stream()>>>(part, g.as<float>(), g.numel);
  add_parts_kernel<<<1, THREADS, 0, stream()>>>(out.as<float>(), part, static_cast<int>(parts));
  return launched("sum_squares");
}

int clip_factor(const Ten& hyper, const Ten& sum_sq, float max_norm) {
  clip_factor_kernel<<<1, 1, 0, stream()>>>(hyper.as<float>(), sum_sq.as<float>(), max_norm);
  return launched("clip_factor");
}

int adamw(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& hyper) {
  if (p.numel == 0) return 0;
  adamw_kernel<<<blocks(p.numel, THREADS), THREADS, 0, stream()>>>(p.as<float>(), g.as<float>(), m.as<float>(),
                                                                   v.as<float>(), hyper.as<float>(), p.numel);
  return launched("adamw");
}

}  // namespace us
