// What every kernel file uses: element types and their vector loads, block reductions, launch arithmetic.
// Values are read as f32 whatever they are stored as, computed in f32, and rounded once when stored.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "../host/library.h"

namespace us {

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ __forceinline__ float to_f(float x) { return x; }
__device__ __forceinline__ float to_f(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f(f16 x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T from_f(float x);
template <> __device__ __forceinline__ float from_f<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 from_f<f16>(float x) { return __float2half_rn(x); }

/** Two values in one 32-bit word, the lower first: how the matrix units take 16-bit operands. */
template <class T> __device__ __forceinline__ uint32_t pack2(float lo, float hi);
template <> __device__ __forceinline__ uint32_t pack2<bf16>(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}
template <> __device__ __forceinline__ uint32_t pack2<f16>(float lo, float hi) {
  __half2 v = __floats2half2_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}
template <class T> __device__ __forceinline__ float2 unpack2(uint32_t w);
template <> __device__ __forceinline__ float2 unpack2<bf16>(uint32_t w) {
  return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&w));
}
template <> __device__ __forceinline__ float2 unpack2<f16>(uint32_t w) {
  return __half22float2(*reinterpret_cast<__half2*>(&w));
}

/** V consecutive elements as f32. V = 8 needs 16-byte alignment, V = 1 none. */
template <int V, class T> __device__ __forceinline__ void load(const T* p, float (&o)[V]) {
  if constexpr (V == 1) {
    o[0] = to_f(p[0]);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V / 4; i++) {
      float4 v = reinterpret_cast<const float4*>(p)[i];
      o[4 * i] = v.x, o[4 * i + 1] = v.y, o[4 * i + 2] = v.z, o[4 * i + 3] = v.w;
    }
  } else {
    static_assert(V == 8, "16-bit types are read eight at a time");
    uint4 w = *reinterpret_cast<const uint4*>(p);
    float2 a = unpack2<T>(w.x), b = unpack2<T>(w.y), c = unpack2<T>(w.z), d = unpack2<T>(w.w);
    o[0] = a.x, o[1] = a.y, o[2] = b.x, o[3] = b.y, o[4] = c.x, o[5] = c.y, o[6] = d.x, o[7] = d.y;
  }
}

template <int V, class T> __device__ __forceinline__ void store(T* p, const float (&o)[V]) {
  if constexpr (V == 1) {
    p[0] = from_f<T>(o[0]);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V / 4; i++)
      reinterpret_cast<float4*>(p)[i] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
  } else {
    *reinterpret_cast<uint4*>(p) =
        make_uint4(pack2<T>(o[0], o[1]), pack2<T>(o[2], o[3]), pack2<T>(o[4], o[5]), pack2<T>(o[6], o[7]));
  }
}

/** V elements of a tensor whose dense type is known only at run time (norm weights, biases): a uniform branch. */
template <int V> __device__ __forceinline__ void load_any(const void* p, int dtype, size_t i, float (&o)[V]) {
  if (dtype == F32) load<V>(static_cast<const float*>(p) + i, o);
  else if (dtype == BF16) load<V>(static_cast<const bf16*>(p) + i, o);
  else load<V>(static_cast<const f16*>(p) + i, o);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(~0u, x, o);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, o));
  return x;
}

/** Sum over a block of THREADS; every thread gets it. The order of additions is fixed. */
template <int THREADS> __device__ __forceinline__ float block_sum(float x) {
  if constexpr (THREADS == 32) return warp_sum(x);
  __shared__ float part[THREADS / 32];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  float s = 0;
#pragma unroll
  for (int i = 0; i < THREADS / 32; i++) s += part[i];
  return s;
}
template <int THREADS> __device__ __forceinline__ float block_max(float x) {
  __shared__ float part[THREADS / 32];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  float s = part[0];
#pragma unroll
  for (int i = 1; i < THREADS / 32; i++) s = fmaxf(s, part[i]);
  return s;
}

inline unsigned blocks(size_t n, size_t per) { return static_cast<unsigned>((n + per - 1) / per); }

/** Whether every pointer allows 16-byte accesses. */
template <class... P> bool aligned16(P... p) { return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...); }

/** Runs the body with T set to the activation type of `dtype`; other types are refused. */
#define US_FLOAT(dtype, T, ...)                                       \
  switch (dtype) {                                                    \
    case F32: { using T = float; __VA_ARGS__; break; }                \
    case BF16: { using T = bf16; __VA_ARGS__; break; }                \
    case F16: { using T = f16; __VA_ARGS__; break; }                  \
    default: return unsupported("element type", dtype);               \
  }

/** Runs the body with V = 8 where `wide` allows 16-byte accesses, else V = 1. */
#define US_WIDTH(wide, V, ...)                                        \
  if (wide) { constexpr int V = 8; __VA_ARGS__; }                     \
  else { constexpr int V = 1; __VA_ARGS__; }

}  // namespace us
