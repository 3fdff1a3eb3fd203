// add, scale, divide, glu and its backward, copy (conversion and decoding), fill, column scaling, dropout: one read of each
// input, one write of each output, bound by memory. Eight elements a thread, 16-byte accesses.
#include "../host/kernels.h"
#include "decode.cuh"

namespace us {
namespace {

constexpr int THREADS = 256;

/** f(i) for i = 0, V, 2V, ... below n. */
template <int V, class F> __global__ void __launch_bounds__(THREADS) each_kernel(size_t n, F f) {
  const size_t i = (static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x) * V;
  if (i < n) f(i);
}
template <int V, class F> int each(const char* op, size_t n, F f) {
  if (n == 0) return 0;
  each_kernel<V><<<blocks(n, static_cast<size_t>(THREADS) * V), THREADS, 0, stream()>>>(n, f);
  return launched(op);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

constexpr float GELU_C = 0.7978845608028654f /* sqrt(2/pi) */, GELU_A = 0.044715f;

/** y = act(x), dy = act'(x). Exact (erf) and tanh forms of GELU: Hendrycks & Gimpel 2016. */
template <int ACT, bool EXACT> __device__ __forceinline__ void activate(float x, float& y, float& dy) {
  if constexpr (ACT == SILU) {
    const float s = EXACT ? 1.0f / (1.0f + expf(-x)) : sigmoid(x);
    y = x * s, dy = s * (1.0f + x * (1.0f - s));
  } else if constexpr (ACT == GELU) {
    const float c = 0.5f * (1.0f + erff(x * 0.7071067811865476f));
    y = x * c, dy = c + x * 0.3989422804014327f * expf(-0.5f * x * x);
  } else {
    const float t = tanhf(GELU_C * (x + GELU_A * x * x * x));
    y = 0.5f * x * (1.0f + t);
    dy = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * GELU_C * (1.0f + 3.0f * GELU_A * x * x);
  }
}

template <class T, int V, int ACT> int glu_run(T* h, const T* gate, const T* up, size_t n) {
  return each<V>("glu", n, [=] __device__(size_t i) {
    float g[V], u[V], o[V], slope;
    load<V>(gate + i, g);
    if (up) load<V>(up + i, u);
#pragma unroll
    for (int j = 0; j < V; j++) {
      activate<ACT, sizeof(T) == 4>(g[j], o[j], slope);
      if (up) o[j] *= u[j];
    }
    store<V>(h + i, o);
  });
}

template <class T, int V, int ACT>
int glu_bwd_run(T* dgate, T* dup, T* h, const T* dh, const T* gate, const T* up, size_t n) {
  return each<V>("glu_bwd", n, [=] __device__(size_t i) {
    float g[V], u[V], d[V], dg[V], du[V], o[V];
    load<V>(gate + i, g), load<V>(dh + i, d);
    if (up) load<V>(up + i, u);
#pragma unroll
    for (int j = 0; j < V; j++) {
      float y, slope;
      activate<ACT, sizeof(T) == 4>(g[j], y, slope);
      du[j] = d[j] * y;
      dg[j] = d[j] * slope * (up ? u[j] : 1.0f);
      o[j] = up ? y * u[j] : y;
    }
    store<V>(h + i, o), store<V>(dgate + i, dg);
    if (up) store<V>(dup + i, du);
  });
}

#define US_ACT(act, ACT, ...)                                   \
  switch (act) {                                                \
    case SILU: { constexpr int ACT = SILU; __VA_ARGS__; break; }  \
    case GELU: { constexpr int ACT = GELU; __VA_ARGS__; break; }  \
    case GELU_TANH: { constexpr int ACT = GELU_TANH; __VA_ARGS__; break; } \
    default: return unsupported("activation", act);             \
  }

/** Philox4x32-10 (Salmon et al. 2011), word `element & 3` of counter (element >> 2, stream, 0, 0): core/philox.ts. */
__device__ __forceinline__ uint4 philox(uint32_t c0, uint32_t c1, uint32_t k0, uint32_t k1) {
  uint32_t c2 = 0, c3 = 0;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t h0 = __umulhi(0xd2511f53u, c0), l0 = 0xd2511f53u * c0;
    const uint32_t h1 = __umulhi(0xcd9e8d57u, c2), l1 = 0xcd9e8d57u * c2;
    c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return make_uint4(c0, c1, c2, c3);
}

}  // namespace

int glu(const Ten& h, const Ten& gate, const Ten& up, int act) {
  const size_t n = h.numel;
  US_FLOAT(h.dtype, T, US_ACT(act, ACT, US_WIDTH(n % 8 == 0 && aligned16(h.p, gate.p, up.p), V,
    return (glu_run<T, V, ACT>(h.as<T>(), gate.as<T>(), up.as<T>(), n)))));
  return 0;
}

int glu_bwd(const Ten& dgate, const Ten& dup, const Ten& h, const Ten& dh, const Ten& gate, const Ten& up, int act) {
  const size_t n = h.numel;
  US_FLOAT(h.dtype, T, US_ACT(act, ACT, US_WIDTH(n % 8 == 0 && aligned16(dgate.p, dup.p, h.p, dh.p, gate.p, up.p), V,
    return (glu_bwd_run<T, V, ACT>(dgate.as<T>(), dup.as<T>(), h.as<T>(), dh.as<T>(), gate.as<T>(), up.as<T>(), n)))));
  return 0;
}

int add(const Ten& out, const Ten& a, const Ten& b) {
  const size_t n = out.numel;
  US_FLOAT(out.dtype, T, US_WIDTH(n % 8 == 0 && aligned16(out.p, a.p, b.p), V, {
    T *po = out.as<T>(), *pa = a.as<T>(), *pb = b.as<T>();
    return each<V>("add", n, [=] __device__(size_t i) {
      float x[V], y[V];
      load<V>(pa + i, x), load<V>(pb + i, y);
#pragma unroll
      for (int j = 0; j < V; j++) x[j] += y[j];
      store<V>(po + i, x);
    });
  }));
  return 0;
}

int scale(const Ten& out, const Ten& x, float factor) {
  const size_t n = out.numel;
  US_FLOAT(out.dtype, T, US_WIDTH(n % 8 == 0 && aligned16(out.p, x.p), V, {
    T *po = out.as<T>(), *px = x.as<T>();
    return each<V>("scale", n, [=] __device__(size_t i) {
      float v[V];
      load<V>(px + i, v);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] *= factor;
      store<V>(po + i, v);
    });
  }));
  return 0;
}

int divide(const Ten& out, const Ten& a, const Ten& b) {
  float *po = out.as<float>(), *pa = a.as<float>(), *pb = b.as<float>();
  return each<1>("divide", out.numel, [=] __device__(size_t i) { po[i] = pa[i] / pb[i]; });
}

int scale_cols(const Ten& out, const Ten& x, const Ten& s) {
  const size_t n = out.numel, D = out.cols;
  const float* ps = s.as<float>();
  US_FLOAT(out.dtype, T, US_WIDTH(D % 8 == 0 && aligned16(out.p, x.p, s.p), V, {
    T *po = out.as<T>(), *px = x.as<T>();
    return each<V>("scale_cols", n, [=] __device__(size_t i) {
      float v[V], w[V];
      load<V>(px + i, v), load<V>(ps + i % D, w);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] *= w[j];
      store<V>(po + i, v);
    });
  }));
  return 0;
}

int dropout(const Ten& out, const Ten& x, const Ten& seed, uint32_t stream_id, uint32_t threshold, float factor) {
  const size_t n = out.numel;
  const uint32_t* key = seed.as<uint32_t>();
  US_FLOAT(out.dtype, T, {
    T *po = out.as<T>(), *px = x.as<T>();
    return each<4>("dropout", n, [=] __device__(size_t i) {
      const uint4 r = philox(static_cast<uint32_t>(i >> 2), stream_id, key[0], key[1]);
      const uint32_t w[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (i + j < n) po[i + j] = w[j] >= threshold ? from_f<T>(to_f(px[i + j]) * factor) : from_f<T>(0.0f);
    });
  });
  return 0;
}

namespace {

template <class O, class I> int convert(const Ten& out, const Ten& x) {
  const size_t n = out.numel;
  O* po = out.as<O>();
  const I* px = x.as<I>();
  US_WIDTH(n % 8 == 0 && aligned16(out.p, x.p), V, {
    return each<V>("copy", n, [=] __device__(size_t i) {
      float v[V];
      load<V>(px + i, v), store<V>(po + i, v);
    });
  });
}

template <class O, int DT> int decode_all(O* out, const void* x, size_t n) {
  return each<8>("copy", n, [=] __device__(size_t i) {
    float v[8];
    decode8<DT>(x, i, v), store<8>(out + i, v);
  });
}

template <class O> int copy_to(const Ten& out, const Ten& x) {
  if (x.dtype == F32) return convert<O, float>(out, x);
  if (x.dtype == BF16) return convert<O, bf16>(out, x);
  if (x.dtype == F16) return convert<O, f16>(out, x);
  if (is_packed(x.dtype) && x.cols % 8) return unsupported("packed rows of length", static_cast<long>(x.cols));
  if (!aligned16(out.p)) return fail(US_INVALID, "Cannot decode blocks to an address that is no multiple of 16");
  US_QUANT(x.dtype, DT, return (decode_all<O, DT>(out.as<O>(), x.p, out.numel)));
  return 0;
}

template <class T, class F> int fill_with(const Ten& out, F value) {
  T* p = out.as<T>();
  return each<1>("fill", out.numel, [=] __device__(size_t i) { p[i] = static_cast<T>(value); });
}

}  // namespace

int copy(const Ten& out, const Ten& x) {
  if (out.dtype == x.dtype) {
    const cudaError_t e = cudaMemcpyAsync(out.p, x.p, out.bytes, cudaMemcpyDeviceToDevice, stream());
    return e == cudaSuccess ? 0 : cuda_error("copy", e);
  }
  US_FLOAT(out.dtype, T, return copy_to<T>(out, x));
  return 0;
}

int fill(const Ten& out, float value, int32_t integer) {
  if (out.dtype == I32) return fill_with<int32_t>(out, integer);
  if (out.dtype == U8) return fill_with<uint8_t>(out, static_cast<uint8_t>(integer));
  if (value == 0.0f) {
    const cudaError_t e = cudaMemsetAsync(out.p, 0, out.bytes, stream());
    return e == cudaSuccess ? 0 : cuda_error("fill", e);
  }
  US_FLOAT(out.dtype, T, return fill_with<T>(out, value));
  return 0;
}

}  // namespace us
