// RMS norm (Zhang & Sennrich 2019) and layer norm over rows of D, with their backward passes.
// out = xhat * w (+ b), xhat = (x - mean) * rstd; moves 2 N D activations, bound by memory. A row lives in registers
// between its passes. The column sums dw, db go through per-chunk partial sums in a fixed order: no atomics.
#include "../host/kernels.h"
#include "each.cuh"
#include "low_rank.h"
#include "rms.cuh"

namespace us {
namespace {

struct Shape { size_t N; int D; };
struct Opts { int kind; float eps, plus; };  // plus: 1 when the weight is 1 + w

/** One row to THREADS threads, ITEMS chunks of V a thread: D <= THREADS * ITEMS * V. */
template <class T, int V, int THREADS, int ITEMS, int ROWS>
__global__ void __launch_bounds__(THREADS * ROWS)
norm_kernel(T* out, float* stat, const T* x, const void* w, int wt, const void* b, int bt, Shape s, Opts o) {
  const size_t n = static_cast<size_t>(blockIdx.x) * ROWS + threadIdx.x / THREADS;
  if (ROWS > 1 && n >= s.N) return;  // whole warps: a row is a warp's when ROWS > 1
  const int t = threadIdx.x % THREADS;
  float v[ITEMS][V], sum = 0;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int c = (i * THREADS + t) * V;
    if (c < s.D) {
      load<V>(x + n * s.D + c, v[i]);
#pragma unroll
      for (int j = 0; j < V; j++) sum += v[i][j];
    }
  }
  const float mean = o.kind == 1 ? block_sum<THREADS>(sum) / s.D : 0.0f;
  float sq = 0;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int c = (i * THREADS + t) * V;
    if (c < s.D)
#pragma unroll
      for (int j = 0; j < V; j++) v[i][j] -= mean, sq += v[i][j] * v[i][j];
  }
  const float rstd = 1.0f / sqrtf(block_sum<THREADS>(sq) / s.D + o.eps);
  if (t == 0) stat[2 * n] = mean, stat[2 * n + 1] = rstd;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int c = (i * THREADS + t) * V;
    if (c < s.D) {
      float g[V], h[V];
      load_any<V>(w, wt, c, g);
      if (b) load_any<V>(b, bt, c, h);
#pragma unroll
      for (int j = 0; j < V; j++) g[j] = v[i][j] * rstd * (g[j] + o.plus) + (b ? h[j] : 0.0f);
      store<V>(out + n * s.D + c, g);
    }
  }
}

/** The RMS norm as a pass over its result makes it (rms.cuh): 64 threads a row, up to ITEMS chunks of eight columns a thread. */
template <class T, int ITEMS>
__global__ void __launch_bounds__(256) rms_kernel(T* out, float* stat, const T* x, const void* w, int wt, Shape s, Opts o) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ float parts[4][rms::PARTS];
  const int t = threadIdx.x % 64, items = 2 * rms::stages_of(s.D), first = t / 8 * items * 64 + t % 8 * 8;
  const size_t n = static_cast<size_t>(blockIdx.x) * 4 + threadIdx.x / 64;
  float *part = parts[threadIdx.x / 64], v[8], sum = 0;
  uint4 words[ITEMS];
  auto has = [&](int i) { return n < s.N && i < items && first + i * 64 < s.D; };
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (has(i)) words[i] = *reinterpret_cast<const uint4*>(x + n * s.D + first + i * 64);
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (has(i)) load<8>(reinterpret_cast<const T*>(&words[i]), v), rms::add_squares(sum, v);
  sum = rms::sum_of_eight(sum);
  if (t % 8 == 0) part[t / 8] = sum;
  __syncthreads();
  const float rstd = rms::rstd_of(part, 1, s.D, o.eps);
  if (t == 0 && n < s.N) stat[2 * n] = 0.0f, stat[2 * n + 1] = rstd;
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (has(i)) {
      float gain[8];
      load_any<8>(w, wt, first + i * 64, gain), load<8>(reinterpret_cast<const T*>(&words[i]), v);
#pragma unroll
      for (int j = 0; j < 8; j++) gain[j] = __fadd_rn(gain[j], o.plus);
      rms::scale_row(v, rstd, gain);
      store<8>(out + n * s.D + first + i * 64, v);
    }
#endif
}

/** dx += rstd * (g - mean(g) [layer] - xhat * mean(g * xhat)), g = dOut * w. */
template <class T, int V, int THREADS, int ITEMS, int ROWS>
__global__ void __launch_bounds__(THREADS * ROWS)
norm_bwd_kernel(T* dx, const T* dout, const T* x, const void* w, int wt, const float* stat, Shape s, Opts o) {
  const size_t n = static_cast<size_t>(blockIdx.x) * ROWS + threadIdx.x / THREADS;
  if (ROWS > 1 && n >= s.N) return;
  const int t = threadIdx.x % THREADS;
  const float mean = stat[2 * n], rstd = stat[2 * n + 1];
  float g[ITEMS][V], h[ITEMS][V], sg = 0, sgh = 0;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int c = (i * THREADS + t) * V;
    if (c < s.D) {
      float k[V];
      load<V>(dout + n * s.D + c, g[i]), load<V>(x + n * s.D + c, h[i]), load_any<V>(w, wt, c, k);
#pragma unroll
      for (int j = 0; j < V; j++) {
        g[i][j] *= k[j] + o.plus, h[i][j] = (h[i][j] - mean) * rstd;
        sg += g[i][j], sgh += g[i][j] * h[i][j];
      }
    }
  }
  const float mg = o.kind == 1 ? block_sum<THREADS>(sg) / s.D : 0.0f, mgh = block_sum<THREADS>(sgh) / s.D;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int c = (i * THREADS + t) * V;
    if (c < s.D) {
      float d[V];
      load<V>(dx + n * s.D + c, d);
#pragma unroll
      for (int j = 0; j < V; j++) d[j] += rstd * (g[i][j] - mg - h[i][j] * mgh);
      store<V>(dx + n * s.D + c, d);
    }
  }
}

template <int V_, int THREADS_, int ITEMS_, int ROWS_> struct Row {
  static constexpr int V = V_, THREADS = THREADS_, ITEMS = ITEMS_, ROWS = ROWS_;
};

/** Calls run with the smallest row shape that holds D; false when none does. */
template <class F> bool pick_row(int D, bool wide, F run) {
  if (wide) {
    if (D <= 256) return run(Row<8, 32, 1, 8>{}), true;
    if (D <= 1024) return run(Row<8, 32, 4, 4>{}), true;
    if (D <= 4096) return run(Row<8, 256, 2, 1>{}), true;
    if (D <= 16384) return run(Row<8, 512, 4, 1>{}), true;
  }
  if (D <= 1024) return run(Row<1, 32, 32, 4>{}), true;
  if (D <= 16384) return run(Row<1, 512, 32, 1>{}), true;
  return false;
}

template <class T> int rms_rows(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, Shape s, Opts o) {
  const int stages = rms::stages_of(s.D);
  auto run = [&](auto kernel) {
    kernel<<<blocks(s.N, 4), 256, 0, stream()>>>(out.as<T>(), stat.as<float>(), x.as<T>(), w.p, w.dtype, s, o);
  };
  if (stages == 1) run(rms_kernel<T, 2>);
  else if (stages == 2) run(rms_kernel<T, 4>);
  else if (stages == 3) run(rms_kernel<T, 6>);
  else if (stages == 4) run(rms_kernel<T, 8>);
  else run(rms_kernel<T, 2 * rms::MOST_STAGES>);
  return launched("norm");
}

}  // namespace

int norm(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, const Ten& b, int kind, float eps, bool plus_one) {
  const Shape s{x.rows, static_cast<int>(x.cols)};
  const Opts o{kind, eps, plus_one ? 1.0f : 0.0f};
  const bool wide = s.D % 8 == 0 && aligned16(out.p, x.p, w.p, b.p);
  // the rows that a pass over them may make: then as it makes them
  if (kind == US_RMS && !b && wide && x.dtype != F32 && wide_norm_fits_sm90(x.cols, 1))
    return x.dtype == BF16 ? rms_rows<bf16>(out, stat, x, w, s, o) : rms_rows<f16>(out, stat, x, w, s, o);
  US_FLOAT(x.dtype, T, {
    const bool fits = pick_row(s.D, wide, [&](auto r) {
      using R = decltype(r);
      norm_kernel<T, R::V, R::THREADS, R::ITEMS, R::ROWS><<<blocks(s.N, R::ROWS), R::THREADS * R::ROWS, 0, stream()>>>(
          out.as<T>(), stat.as<float>(), x.as<T>(), w.p, w.dtype, b.p, b.dtype, s, o);
    });
    if (!fits) return fail(US_INVALID, "Cannot run norm: rows of %d are longer than 16384", s.D);
  });
  return launched("norm");
}

namespace {

template <class T, int V> int renorm_run(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, float plus) {
  const size_t D = x.cols;
  T* po = out.as<T>();
  const T* px = x.as<T>();
  const float2* ps = stat.as<float2>();
  const Ten weight = w, bias = b;
  return each<V>("renorm", x.numel, [=] __device__(size_t i) {
    const float2 s = ps[i / D];
    float v[V], g[V], h[V];
    load<V>(px + i, v), load_any<V>(weight.p, weight.dtype, i % D, g);
    if (bias.p) load_any<V>(bias.p, bias.dtype, i % D, h);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = (v[j] - s.x) * s.y * (g[j] + plus) + (bias.p ? h[j] : 0.0f);
    store<V>(po + i, v);
  });
}

}  // namespace

int renorm(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, bool plus_one) {
  US_FLOAT(x.dtype, T, US_WIDTH(x.cols % 8 == 0 && aligned16(out.p, x.p, w.p, b.p), V,
    return (renorm_run<T, V>(out, x, stat, w, b, plus_one ? 1.0f : 0.0f))));
  return 0;
}

// column sums of dOut * xhat and dOut are in columns.cu
int norm_weight_bwd(const Ten& dw, const Ten& db, const Ten& dout, const Ten& x, const Ten& stat);

int norm_bwd(const Ten& dx, const Ten& dw, const Ten& db, const Ten& dout, const Ten& x, const Ten& w, const Ten& stat,
             int kind, bool plus_one) {
  const Shape s{x.rows, static_cast<int>(x.cols)};
  const Opts o{kind, 0.0f, plus_one ? 1.0f : 0.0f};
  const bool wide = s.D % 8 == 0 && aligned16(dx.p, dout.p, x.p, w.p);
  US_FLOAT(x.dtype, T, {
    const bool fits = pick_row(s.D, wide, [&](auto r) {
      using R = decltype(r);
      norm_bwd_kernel<T, R::V, R::THREADS, R::ITEMS, R::ROWS>
          <<<blocks(s.N, R::ROWS), R::THREADS * R::ROWS, 0, stream()>>>(dx.as<T>(), dout.as<T>(), x.as<T>(), w.p, w.dtype,
                                                                        stat.as<float>(), s, o);
    });
    if (!fits) return fail(US_INVALID, "Cannot run norm_bwd: rows of %d are longer than 16384", s.D);
  });
  if (const int rc = launched("norm_bwd")) return rc;
  return dw || db ? norm_weight_bwd(dw, db, dout, x, stat) : 0;
}

}  // namespace us
