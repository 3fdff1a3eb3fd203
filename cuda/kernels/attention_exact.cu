// Attention in f32 arithmetic for any type and any head size up to 256: the engine of f32 runs and of head sizes that the
// matrix units do not take. A block has 16 rows (queries, or keys in the pass for dk and dv), eight threads a row; tiles
// of 16 of the other side pass through shared memory. Softmax is online (Milakov & Gimelshein 2018).
#include "attention_mask.cuh"

namespace us {
namespace {

constexpr int ROWS = 16, LANES = 8, THREADS = ROWS * LANES, MAX_D = 256, PER = MAX_D / LANES;

/** Sum over the eight threads of a row. */
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int o = 4; o; o >>= 1) x += __shfl_xor_sync(~0u, x, o);
  return x;
}
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int o = 4; o; o >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, o));
  return x;
}

/** Rows from..from+15 of head h of [N,heads,d] as f32, row stride d+1; zeros past the end. */
template <class T> __device__ __forceinline__ void load_rows(float* s, const void* p, int from, int N, int heads, int h, int d) {
  for (int e = threadIdx.x; e < ROWS * d; e += THREADS) {
    const int r = e / d, c = e % d, n = from + r;
    s[r * (d + 1) + c] = n < N ? to_f(static_cast<const T*>(p)[(static_cast<size_t>(n) * heads + h) * d + c]) : 0.0f;
  }
}

__device__ __forceinline__ float dot(const float* a, const float* b, int d) {
  float s = 0;
  for (int c = 0; c < d; c++) s = fmaf(a[c], b[c], s);
  return s;
}

/** The score after scale and soft cap; slope is its derivative with respect to q . k. */
__device__ __forceinline__ float score(float qk, AttnOpts o, float& slope) {
  float s = qk * o.scale;
  slope = o.scale;
  if (o.softcap > 0) {
    const float t = tanhf(s / o.softcap);
    s = o.softcap * t, slope *= 1 - t * t;
  }
  return s;
}

template <class T> __global__ void __launch_bounds__(THREADS) forward_kernel(Attention a) {
  extern __shared__ float sm[];
  const int D = a.d + 1, r = threadIdx.x / LANES, l = threadIdx.x % LANES, h = blockIdx.y, kh = h / (a.H / a.K);
  float *qs = sm, *ks = qs + ROWS * D, *vs = ks + ROWS * D, *ps = vs + ROWS * D;
  const int first = blockIdx.x * ROWS, n = first + r, last = min(first + ROWS, a.N) - 1;
  const int start = sequence_start(a.cu, a.S, min(n, a.N - 1));
  load_rows<T>(qs, a.q, first, a.N, a.H, h, a.d);
  float acc[PER] = {}, top = -INFINITY, sum = 0, slope;
  for (int k0 = first_key(a.cu, a.S, first, a.o.window); k0 <= last; k0 += ROWS) {
    __syncthreads();
    load_rows<T>(ks, a.k, k0, a.N, a.K, kh, a.d), load_rows<T>(vs, a.v, k0, a.N, a.K, kh, a.d);
    __syncthreads();
    float s[ROWS / LANES], best = top;
#pragma unroll
    for (int j = 0; j < ROWS / LANES; j++) {
      const int c = l + j * LANES;
      s[j] = sees(n, k0 + c, start, a.o.window) ? score(dot(qs + r * D, ks + c * D, a.d), a.o, slope) : -INFINITY;
      best = fmaxf(best, s[j]);
    }
    best = row_max(best);
    const float base = best == -INFINITY ? 0.0f : best;  // no key seen so far: all weights below are exp(-inf) = 0
    const float shrink = expf(top - base);
    float part = 0;
#pragma unroll
    for (int j = 0; j < ROWS / LANES; j++) {
      const float p = expf(s[j] - base);
      ps[r * ROWS + l + j * LANES] = p, part += p;
    }
    sum = sum * shrink + row_sum(part), top = best;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PER; j++) {
      const int c = l + j * LANES;
      if (c >= a.d) break;
      float x = acc[j] * shrink;
#pragma unroll
      for (int i = 0; i < ROWS; i++) x = fmaf(ps[r * ROWS + i], vs[i * D + c], x);
      acc[j] = x;
    }
  }
  if (n >= a.N) return;
#pragma unroll
  for (int j = 0; j < PER; j++) {
    const int c = l + j * LANES;
    if (c < a.d) static_cast<T*>(a.out)[(static_cast<size_t>(n) * a.H + h) * a.d + c] = from_f<T>(sum > 0 ? acc[j] / sum : 0.0f);
  }
  if (l == 0) a.lse[static_cast<size_t>(h) * a.N + n] = sum > 0 ? top + logf(sum) : 0.0f;
}

/** delta by the same sums as the kernels below, so that a row which sees one key has a gradient of exactly zero. */
template <class T> __global__ void delta_kernel(Attention a) {
  const size_t row = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= static_cast<size_t>(a.N) * a.H) return;
  const T *x = static_cast<const T*>(a.dout) + row * a.d, *y = static_cast<const T*>(a.out) + row * a.d;
  float s = 0;
  for (int c = 0; c < a.d; c++) s = fmaf(to_f(x[c]), to_f(y[c]), s);
  a.delta[row % a.H * a.N + row / a.H] = s;
}

/** dq of 16 queries. */
template <class T> __global__ void __launch_bounds__(THREADS) dq_kernel(Attention a) {
  extern __shared__ float sm[];
  const int D = a.d + 1, r = threadIdx.x / LANES, l = threadIdx.x % LANES, h = blockIdx.y, kh = h / (a.H / a.K);
  float *qs = sm, *os = qs + ROWS * D, *ks = os + ROWS * D, *vs = ks + ROWS * D, *ps = vs + ROWS * D;
  const int first = blockIdx.x * ROWS, n = first + r, last = min(first + ROWS, a.N) - 1, at = min(n, a.N - 1);
  const int start = sequence_start(a.cu, a.S, at);
  const float lse = a.lse[static_cast<size_t>(h) * a.N + at], delta = a.delta[static_cast<size_t>(h) * a.N + at];
  load_rows<T>(qs, a.q, first, a.N, a.H, h, a.d), load_rows<T>(os, a.dout, first, a.N, a.H, h, a.d);
  float acc[PER] = {};
  for (int k0 = first_key(a.cu, a.S, first, a.o.window); k0 <= last; k0 += ROWS) {
    __syncthreads();
    load_rows<T>(ks, a.k, k0, a.N, a.K, kh, a.d), load_rows<T>(vs, a.v, k0, a.N, a.K, kh, a.d);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < ROWS / LANES; j++) {
      const int c = l + j * LANES;
      float ds = 0, slope;
      if (sees(n, k0 + c, start, a.o.window)) {
        const float p = expf(score(dot(qs + r * D, ks + c * D, a.d), a.o, slope) - lse);
        ds = p * (dot(os + r * D, vs + c * D, a.d) - delta) * slope;
      }
      ps[r * ROWS + c] = ds;
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PER; j++) {
      const int c = l + j * LANES;
      if (c >= a.d) break;
#pragma unroll
      for (int i = 0; i < ROWS; i++) acc[j] = fmaf(ps[r * ROWS + i], ks[i * D + c], acc[j]);
    }
  }
  if (n >= a.N) return;
#pragma unroll
  for (int j = 0; j < PER; j++) {
    const int c = l + j * LANES;
    if (c < a.d) static_cast<T*>(a.dq)[(static_cast<size_t>(n) * a.H + h) * a.d + c] = from_f<T>(acc[j]);
  }
}

/** dk and dv of 16 keys of one kv head: sums over its query heads and the queries that see them, in a fixed order. */
template <class T> __global__ void __launch_bounds__(THREADS) dkv_kernel(Attention a) {
  extern __shared__ float sm[];
  const int D = a.d + 1, r = threadIdx.x / LANES, l = threadIdx.x % LANES, kh = blockIdx.y, G = a.H / a.K;
  float *ks = sm, *vs = ks + ROWS * D, *qs = vs + ROWS * D, *os = qs + ROWS * D, *ps = os + ROWS * D, *ss = ps + ROWS * ROWS;
  const int first = blockIdx.x * ROWS, key = first + r, last = min(first + ROWS, a.N) - 1;
  // the last key that is in a sequence bounds the queries; padding, where it is, comes last
  int end = sequence_end(a.cu, a.S, min(last, a.cu[a.S] - 1));
  if (a.o.window > 0) end = min(end, last + a.o.window);
  load_rows<T>(ks, a.k, first, a.N, a.K, kh, a.d), load_rows<T>(vs, a.v, first, a.N, a.K, kh, a.d);
  float dk[PER] = {}, dv[PER] = {};
  for (int g = 0; g < G; g++) {
    const int h = kh * G + g;
    for (int q0 = first; q0 < end; q0 += ROWS) {
      __syncthreads();
      load_rows<T>(qs, a.q, q0, a.N, a.H, h, a.d), load_rows<T>(os, a.dout, q0, a.N, a.H, h, a.d);
      __syncthreads();
#pragma unroll
      for (int j = 0; j < ROWS / LANES; j++) {
        const int c = l + j * LANES, n = q0 + c;
        float p = 0, ds = 0, slope;
        if (n < a.N && key < a.N && sees(n, key, sequence_start(a.cu, a.S, n), a.o.window)) {
          const size_t row = static_cast<size_t>(h) * a.N + n;
          p = expf(score(dot(qs + c * D, ks + r * D, a.d), a.o, slope) - a.lse[row]);
          ds = p * (dot(os + c * D, vs + r * D, a.d) - a.delta[row]) * slope;
        }
        ps[r * ROWS + c] = p, ss[r * ROWS + c] = ds;
      }
      __syncwarp();
#pragma unroll
      for (int j = 0; j < PER; j++) {
        const int c = l + j * LANES;
        if (c >= a.d) break;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
          dv[j] = fmaf(ps[r * ROWS + i], os[i * D + c], dv[j]);
          dk[j] = fmaf(ss[r * ROWS + i], qs[i * D + c], dk[j]);
        }
      }
    }
  }
  if (key >= a.N) return;
#pragma unroll
  for (int j = 0; j < PER; j++) {
    const int c = l + j * LANES;
    const size_t i = (static_cast<size_t>(key) * a.K + kh) * a.d + c;
    if (c < a.d) static_cast<T*>(a.dk)[i] = from_f<T>(dk[j]), static_cast<T*>(a.dv)[i] = from_f<T>(dv[j]);
  }
}

/** Launches with `tiles` tiles of rows in shared memory, of which a block may need more than the 48 KB it gets unasked. */
template <class Kernel> int launch(const char* op, Kernel kernel, const Attention& a, int heads, int tiles) {
  const int shared = (tiles * ROWS * (a.d + 1) + 2 * ROWS * ROWS) * static_cast<int>(sizeof(float));
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (e != cudaSuccess) return cuda_error(op, e);
  kernel<<<dim3(blocks(a.N, ROWS), heads), THREADS, shared, stream()>>>(a);
  return launched(op);
}

}  // namespace

int attention_exact(const Attention& a) {
  if (a.d > MAX_D) return unsupported("head size", a.d);
  US_FLOAT(a.dtype, T, return launch("attention", forward_kernel<T>, a, a.H, 3));
  return 0;
}

int attention_exact_bwd(const Attention& a) {
  if (a.d > MAX_D) return unsupported("head size", a.d);
  US_FLOAT(a.dtype, T, {
    delta_kernel<T><<<blocks(static_cast<size_t>(a.N) * a.H, 256), 256, 0, stream()>>>(a);
    if (const int rc = launch("attention_bwd", dq_kernel<T>, a, a.H, 4)) return rc;
    return launch("attention_bwd", dkv_kernel<T>, a, a.K, 4);
  });
  return 0;
}

}  // namespace us
