// Keys and values in caches [S,L,K,d]: writing them, and the attention of new queries over them. A block has one query, one
// kv head with all its query heads, and one share of the rows 0..pos; the shares are joined in a second launch. Bound by
// reading the cache once.
#include "attention_mask.cuh"

namespace us {
namespace {

constexpr int THREADS = 128, TILE = 32, MAX_SHARES = 32;

template <class T> __global__ void write_kernel(T* kc, T* vc, const T* k, const T* v, const int* seq, const int* pos, int S, int L, int Kd) {
  const int s = seq[blockIdx.x], p = pos[blockIdx.x];
  if (s < 0 || s >= S || p < 0 || p >= L) return;
  const size_t to = (static_cast<size_t>(s) * L + p) * Kd, from = static_cast<size_t>(blockIdx.x) * Kd;
  for (int i = threadIdx.x; i < Kd; i += blockDim.x) kc[to + i] = k[from + i], vc[to + i] = v[from + i];
}

struct Cached {
  const void *q, *kc, *vc;
  void* out;
  float* part;  // [N,H,shares,d+2]: sums, then maximum and sum of weights; null when there is one share
  const int *seq, *pos;
  int S, L, H, K, d, shares;
  AttnOpts o;
};

template <class T> __global__ void __launch_bounds__(THREADS) cached_kernel(Cached a) {
  extern __shared__ float sm[];
  const int n = blockIdx.x, kh = blockIdx.y, share = blockIdx.z, G = a.H / a.K, D = a.d + 1;
  float *qs = sm, *ks = qs + G * D, *vs = ks + TILE * D, *ps = vs + TILE * D, *acc = ps + G * TILE, *tops = acc + G * a.d, *sums = tops + G,
        *shrinks = sums + G;
  const int s = a.seq[n], p = a.pos[n];
  const bool known = s >= 0 && s < a.S && p >= 0 && p < a.L;
  const int begin = known && a.o.window > 0 ? max(0, p - a.o.window + 1) : 0, rows = known ? p + 1 - begin : 0;
  const int a_share = ((rows + a.shares - 1) / a.shares + TILE - 1) / TILE * TILE;
  const int from = begin + share * a_share, to = min(from + a_share, begin + rows);
  for (int e = threadIdx.x; e < G * a.d; e += THREADS) {
    qs[e / a.d * D + e % a.d] = to_f(static_cast<const T*>(a.q)[(static_cast<size_t>(n) * a.H + kh * G) * a.d + e]);
    acc[e] = 0;
  }
  for (int g = threadIdx.x; g < G; g += THREADS) tops[g] = -INFINITY, sums[g] = 0;
  for (int k0 = from; k0 < to; k0 += TILE) {
    __syncthreads();
    for (int e = threadIdx.x; e < TILE * a.d; e += THREADS) {
      const int r = e / a.d, c = e % a.d;
      const size_t i = ((static_cast<size_t>(s) * a.L + k0 + r) * a.K + kh) * a.d + c;
      const bool in = k0 + r < to;
      ks[r * D + c] = in ? to_f(static_cast<const T*>(a.kc)[i]) : 0.0f;
      vs[r * D + c] = in ? to_f(static_cast<const T*>(a.vc)[i]) : 0.0f;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < G * TILE; e += THREADS) {
      const int g = e / TILE, r = e % TILE;
      float x = 0;
      for (int c = 0; c < a.d; c++) x = fmaf(qs[g * D + c], ks[r * D + c], x);
      x *= a.o.scale;
      if (a.o.softcap > 0) x = a.o.softcap * tanhf(x / a.o.softcap);
      if (k0 + r >= to) x = -INFINITY;
      const float best = fmaxf(tops[g], warp_max(x)), w = expf(x - best), sum = warp_sum(w);  // a warp is a head's tile
      ps[e] = w;
      __syncwarp();
      if (r == 0) shrinks[g] = expf(tops[g] - best), sums[g] = sums[g] * shrinks[g] + sum, tops[g] = best;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < G * a.d; e += THREADS) {
      const int g = e / a.d, c = e % a.d;
      float x = acc[e] * shrinks[g];
#pragma unroll 8
      for (int r = 0; r < TILE; r++) x = fmaf(ps[g * TILE + r], vs[r * D + c], x);
      acc[e] = x;
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < G * a.d; e += THREADS) {
    const int g = e / a.d, c = e % a.d, h = kh * G + g;
    if (a.part) {
      float* to_part = a.part + ((static_cast<size_t>(n) * a.H + h) * a.shares + share) * (a.d + 2);
      to_part[c] = acc[e];
      if (c == 0) to_part[a.d] = tops[g], to_part[a.d + 1] = sums[g];
    } else {
      const float y = known ? acc[e] / sums[g] : __int_as_float(0x7fffffff);
      static_cast<T*>(a.out)[(static_cast<size_t>(n) * a.H + h) * a.d + c] = from_f<T>(y);
    }
  }
}

template <class T> __global__ void join_kernel(Cached a) {
  const size_t row = blockIdx.x;
  const float* part = a.part + row * a.shares * (a.d + 2);
  const int p = a.pos[row / a.H], s = a.seq[row / a.H];
  const bool known = s >= 0 && s < a.S && p >= 0 && p < a.L;
  float top = -INFINITY;
  for (int i = 0; i < a.shares; i++) top = fmaxf(top, part[i * (a.d + 2) + a.d]);
  for (int c = threadIdx.x; c < a.d; c += blockDim.x) {
    float x = 0, sum = 0;
    for (int i = 0; i < a.shares; i++) {
      const float* q = part + i * (a.d + 2);
      const float w = q[a.d] == -INFINITY ? 0.0f : expf(q[a.d] - top);
      x += w * q[c], sum += w * q[a.d + 1];
    }
    static_cast<T*>(a.out)[row * a.d + c] = from_f<T>(known ? x / sum : __int_as_float(0x7fffffff));
  }
}

template <class T> int run(Cached a, int N) {
  const int G = a.H / a.K, shared = (G * (a.d + 1) + 2 * TILE * (a.d + 1) + G * TILE + G * a.d + 3 * G) * static_cast<int>(sizeof(float));
  const cudaError_t e = cudaFuncSetAttribute(cached_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (e != cudaSuccess) return cuda_error("attention_cached", e);
  int shares = 4 * multiprocessors() / (N * a.K);
  const int most = (a.L + 4 * TILE - 1) / (4 * TILE);
  shares = shares > most ? most : shares;
  a.shares = shares < 1 ? 1 : shares > MAX_SHARES ? MAX_SHARES : shares;
  if (a.shares > 1) {
    a.part = static_cast<float*>(scratch(SCRATCH_PARTS, sizeof(float) * N * a.H * a.shares * (a.d + 2)));
    if (!a.part) return US_MEMORY;
  }
  cached_kernel<T><<<dim3(N, a.K, a.shares), THREADS, shared, stream()>>>(a);
  if (a.part) join_kernel<T><<<static_cast<unsigned>(N) * a.H, 128, 0, stream()>>>(a);
  return launched("attention_cached");
}

}  // namespace

int cache_write(const Ten& kc, const Ten& vc, const Ten& k, const Ten& v, const Ten& seq, const Ten& pos) {
  const int N = static_cast<int>(k.shape[0]), Kd = static_cast<int>(k.shape[1] * k.shape[2]);
  if (N == 0) return US_OK;
  US_FLOAT(k.dtype, T,
    write_kernel<T><<<N, 256, 0, stream()>>>(kc.as<T>(), vc.as<T>(), k.as<T>(), v.as<T>(), seq.as<int>(), pos.as<int>(),
                                             static_cast<int>(kc.shape[0]), static_cast<int>(kc.shape[1]), Kd));
  return launched("cache_write");
}

int attention_cached(const Ten& out, const Ten& q, const Ten& kc, const Ten& vc, const Ten& seq, const Ten& pos, AttnOpts o) {
  const int N = static_cast<int>(q.shape[0]);
  if (N == 0) return US_OK;
  const Cached a{q.p, kc.p, vc.p, out.p, nullptr, seq.as<int>(), pos.as<int>(),
                 static_cast<int>(kc.shape[0]), static_cast<int>(kc.shape[1]), static_cast<int>(q.shape[1]),
                 static_cast<int>(kc.shape[2]), static_cast<int>(q.shape[2]), 1, o};
  if (a.d > 256 || a.H / a.K > 32) return unsupported("head size or group of", a.d > 256 ? a.d : a.H / a.K);
  US_FLOAT(q.dtype, T, return run<T>(a, N));
  return 0;
}

}  // namespace us
