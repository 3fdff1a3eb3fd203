// add, scale, divide, glu and its backward, copy (conversion and decoding), fill, column scaling: one read of each input, one
// write of each output, bound by memory. Eight elements a thread, 16-byte accesses.
#include "../host/kernels.h"
#include "activate.cuh"
#include "decode.cuh"
#include "each.cuh"
#include "fp8.h"

namespace us {
namespace {

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
    return e == cudaSuccess ? launched("copy") : cuda_error("copy", e);
  }
  if (x.dtype == FP8_128) return dequantize_fp8(out, x);
  US_FLOAT(out.dtype, T, return copy_to<T>(out, x));
  return 0;
}

int fill(const Ten& out, float value, int32_t integer) {
  if (out.dtype == I32) return fill_with<int32_t>(out, integer);
  if (out.dtype == U8) return fill_with<uint8_t>(out, static_cast<uint8_t>(integer));
  if (value == 0.0f) {
    const cudaError_t e = cudaMemsetAsync(out.p, 0, out.bytes, stream());
    return e == cudaSuccess ? launched("fill") : cuda_error("fill", e);
  }
  US_FLOAT(out.dtype, T, return fill_with<T>(out, value));
  return 0;
}

}  // namespace us
