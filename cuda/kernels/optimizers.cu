// The optimisers beside AdamW, over f32 parameters: SGD, Lion (Chen et al. 2023), AdamW with moments of 8 bits in blocks of
// 256 (Dettmers et al. 2022), Adafactor (Shazeer & Stern 2018). hyper is read from device memory, so a captured step stays
// valid; sums go through partial sums in a fixed order. Bound by memory.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int THREADS = 256, MAX_PARTS = 1024;

__global__ void __launch_bounds__(THREADS) sgd_kernel(float* p, const float* g, float* m, const float* h, size_t n) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  float d = h[7] * g[i] + h[4] * p[i];
  if (m) d = m[i] = h[1] * m[i] + d;
  p[i] -= h[0] * d;
}

__global__ void __launch_bounds__(THREADS) lion_kernel(float* p, const float* g, float* m, const float* h, size_t n) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  const float d = h[7] * g[i], c = h[1] * m[i] + (1 - h[1]) * d;
  p[i] = p[i] * (1 - h[0] * h[4]) - h[0] * (c > 0 ? 1.0f : c < 0 ? -1.0f : 0.0f);
  m[i] = h[2] * m[i] + (1 - h[2]) * d;
}

/** The nearest of 256 ascending codes, the lower one in a tie. */
__device__ __forceinline__ uint8_t nearest(const float* codes, float x) {
  int lo = 0, hi = 255;  // the first code that is at least x, or the last
  while (lo < hi) {
    const int mid = (lo + hi) / 2;
    if (codes[mid] < x) lo = mid + 1;
    else hi = mid;
  }
  return static_cast<uint8_t>(lo > 0 && x - codes[lo - 1] <= codes[lo] - x ? lo - 1 : lo);
}

/** One block of 256 elements a thread block. */
__global__ void __launch_bounds__(THREADS)
adamw8_kernel(float* p, const float* g, uint8_t* m, uint8_t* v, float* absmax, const float* codes, const float* h, size_t blocks) {
  __shared__ float of_m[256], of_v[256];
  const size_t b = blockIdx.x, i = b * 256 + threadIdx.x;
  of_m[threadIdx.x] = codes[threadIdx.x], of_v[threadIdx.x] = codes[256 + threadIdx.x];
  __syncthreads();
  const float lr = h[0], b1 = h[1], b2 = h[2], d = h[7] * g[i];
  const float mi = b1 * of_m[m[i]] * absmax[b] + (1 - b1) * d, vi = b2 * of_v[v[i]] * absmax[blocks + b] + (1 - b2) * d * d;
  p[i] -= lr * (h[4] * p[i] + (mi / h[5]) / (sqrtf(vi / h[6]) + h[3]));
  const float most_m = block_max<THREADS>(fabsf(mi)), most_v = block_max<THREADS>(fabsf(vi));
  m[i] = nearest(of_m, most_m == 0 ? 0.0f : mi / most_m), v[i] = nearest(of_v, most_v == 0 ? 0.0f : vi / most_v);
  if (threadIdx.x == 0) absmax[b] = most_m, absmax[blocks + b] = most_v;
}

// ---- Adafactor ----

struct Factor {
  float *p, *row, *col, *parts;  // parts: [0] the mean of row; then partial sums of u^2
  const float *g, *h;
  size_t O, I;
  int count;  // of partial sums
};

__device__ __forceinline__ float square(const Factor& f, size_t i) {
  const float x = f.h[7] * f.g[i];
  return x * x + f.h[3];
}

__global__ void __launch_bounds__(THREADS) factor_rows_kernel(Factor f) {
  const size_t o = blockIdx.x;
  float s = 0;
  for (size_t i = threadIdx.x; i < f.I; i += THREADS) s += square(f, o * f.I + i);
  s = block_sum<THREADS>(s) / static_cast<float>(f.I);
  if (threadIdx.x == 0) f.row[o] = f.h[2] * f.row[o] + (1 - f.h[2]) * s;
}

/** 32 columns a block, eight threads each down the rows. */
__global__ void __launch_bounds__(THREADS) factor_columns_kernel(Factor f) {
  __shared__ float lanes[8][32];
  const int c = threadIdx.x % 32, lane = threadIdx.x / 32;
  const size_t i = static_cast<size_t>(blockIdx.x) * 32 + c;
  float s = 0;
  if (i < f.I)
    for (size_t o = lane; o < f.O; o += 8) s += square(f, o * f.I + i);
  lanes[lane][c] = s;
  __syncthreads();
  if (lane || i >= f.I) return;
  for (int k = 1; k < 8; k++) s += lanes[k][c];
  f.col[i] = f.h[2] * f.col[i] + (1 - f.h[2]) * s / static_cast<float>(f.O);
}

__global__ void __launch_bounds__(THREADS) factor_whole_kernel(Factor f) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i < f.O * f.I) f.col[i] = f.h[2] * f.col[i] + (1 - f.h[2]) * square(f, i);
}

__global__ void __launch_bounds__(THREADS) factor_mean_kernel(Factor f) {
  float s = 0;
  for (size_t o = threadIdx.x; o < f.O; o += THREADS) s += f.row[o];
  s = block_sum<THREADS>(s);
  if (threadIdx.x == 0) f.parts[0] = s / static_cast<float>(f.O);
}

__device__ __forceinline__ float direction(const Factor& f, size_t n) {
  const float moment = f.row ? f.row[n / f.I] / f.parts[0] * f.col[n % f.I] : f.col[n];
  return f.h[7] * f.g[n] / sqrtf(moment);
}

__global__ void __launch_bounds__(THREADS) factor_size_kernel(Factor f) {
  float s = 0;
  for (size_t n = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; n < f.O * f.I; n += static_cast<size_t>(gridDim.x) * THREADS) {
    const float u = direction(f, n);
    s += u * u;
  }
  s = block_sum<THREADS>(s);
  if (threadIdx.x == 0) f.parts[1 + blockIdx.x] = s;
}

__global__ void __launch_bounds__(THREADS) factor_update_kernel(Factor f) {
  float s = 0;
  for (int i = threadIdx.x; i < f.count; i += THREADS) s += f.parts[1 + i];
  const float rms = sqrtf(block_sum<THREADS>(s) / static_cast<float>(f.O * f.I)), shrink = fmaxf(1.0f, rms / f.h[5]);
  const size_t n = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (n < f.O * f.I) f.p[n] = f.p[n] * (1 - f.h[0] * f.h[4]) - f.h[0] * direction(f, n) / shrink;
}

}  // namespace

int sgd(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper) {
  if (p.numel == 0) return US_OK;
  sgd_kernel<<<blocks(p.numel, THREADS), THREADS, 0, stream()>>>(p.as<float>(), g.as<float>(), m.as<float>(),
                                                                hyper.as<float>(), p.numel);
  return launched("sgd");
}

int lion(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper) {
  if (p.numel == 0) return US_OK;
  lion_kernel<<<blocks(p.numel, THREADS), THREADS, 0, stream()>>>(p.as<float>(), g.as<float>(), m.as<float>(),
                                                                 hyper.as<float>(), p.numel);
  return launched("lion");
}

int adamw8(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& absmax, const Ten& codes, const Ten& hyper) {
  if (p.numel % 256) return unsupported("8-bit moments of elements", static_cast<long>(p.numel));
  if (p.numel == 0) return US_OK;
  adamw8_kernel<<<blocks(p.numel, 256), THREADS, 0, stream()>>>(p.as<float>(), g.as<float>(), m.as<uint8_t>(), v.as<uint8_t>(),
                                                               absmax.as<float>(), codes.as<float>(), hyper.as<float>(),
                                                               p.numel / 256);
  return launched("adamw8");
}

int adafactor(const Ten& p, const Ten& g, const Ten& row, const Ten& col, const Ten& hyper) {
  const size_t n = p.numel;
  if (n == 0) return US_OK;
  Factor f{p.as<float>(), row.as<float>(), col.as<float>(), nullptr, g.as<float>(), hyper.as<float>(), 1, n, 0};
  if (row) f.I = col.numel, f.O = n / f.I;
  f.count = static_cast<int>(min(blocks(n, THREADS * 8), static_cast<unsigned>(MAX_PARTS)));
  f.parts = static_cast<float*>(scratch(SCRATCH_PARTS, (1 + MAX_PARTS) * sizeof(float)));
  if (!f.parts) return US_MEMORY;
  if (row) {
    factor_rows_kernel<<<static_cast<unsigned>(f.O), THREADS, 0, stream()>>>(f);
    factor_columns_kernel<<<blocks(f.I, 32), THREADS, 0, stream()>>>(f);
    factor_mean_kernel<<<1, THREADS, 0, stream()>>>(f);
  } else {
    factor_whole_kernel<<<blocks(n, THREADS), THREADS, 0, stream()>>>(f);
  }
  factor_size_kernel<<<f.count, THREADS, 0, stream()>>>(f);
  factor_update_kernel<<<blocks(n, THREADS), THREADS, 0, stream()>>>(f);
  return launched("adafactor");
}

}  // namespace us
