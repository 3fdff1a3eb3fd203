// Decoding of block formats, eight elements at a time: eight consecutive elements share their scales in every format.
// Layouts: ggml-common.h (GGUF) and bitsandbytes' nf4 with f32 absmax. Every block starts at an even address.
#pragma once
#include "common.cuh"

namespace us {

__device__ __forceinline__ float half_at(const uint8_t* p) {
  return __half2float(__ushort_as_half(*reinterpret_cast<const uint16_t*>(p)));
}
__device__ __forceinline__ uint32_t u32_at(const uint8_t* p) {
  const uint16_t* h = reinterpret_cast<const uint16_t*>(p);
  return h[0] | static_cast<uint32_t>(h[1]) << 16;
}

// iq4's sixteen values (ggml kvalues_iq4nl).
__device__ __constant__ const int8_t IQ4_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                       1,    13,   25,  38,  53,  69,  89,  113};
// nf4: quantiles of a standard normal (Dettmers et al. 2023, appendix E).
__device__ __constant__ const float NF4_VALUES[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

template <int DT> struct Block;  // elements and bytes of one block
template <> struct Block<Q4_0> { static constexpr int N = 32, BYTES = 18; };
template <> struct Block<Q4_1> { static constexpr int N = 32, BYTES = 20; };
template <> struct Block<Q5_0> { static constexpr int N = 32, BYTES = 22; };
template <> struct Block<Q5_1> { static constexpr int N = 32, BYTES = 24; };
template <> struct Block<Q8_0> { static constexpr int N = 32, BYTES = 34; };
template <> struct Block<Q2_K> { static constexpr int N = 256, BYTES = 84; };
template <> struct Block<Q3_K> { static constexpr int N = 256, BYTES = 110; };
template <> struct Block<Q4_K> { static constexpr int N = 256, BYTES = 144; };
template <> struct Block<Q5_K> { static constexpr int N = 256, BYTES = 176; };
template <> struct Block<Q6_K> { static constexpr int N = 256, BYTES = 210; };
template <> struct Block<IQ4_NL> { static constexpr int N = 32, BYTES = 18; };
template <> struct Block<IQ4_XS> { static constexpr int N = 256, BYTES = 136; };
template <> struct Block<NF4> { static constexpr int N = 64, BYTES = 36; };
template <> struct Block<FP8> { static constexpr int N = 8, BYTES = 8; };  // no block, but read eight at a time like one

/** The 6-bit scale and minimum of sub-block s of a q4_k or q5_k block (ggml get_scale_min_k4). */
__device__ __forceinline__ void scale_min_k4(const uint8_t* b, int s, float& sc, float& mn) {
  if (s < 4) {
    sc = b[s] & 63, mn = b[s + 4] & 63;
  } else {
    sc = (b[s + 4] & 15) | (b[s - 4] >> 6) << 4;
    mn = (b[s + 4] >> 4) | (b[s] >> 6) << 4;
  }
}

/** OCP e4m3: its exponent and mantissa at an f16's place are the value times 2^-8; all ones is NaN. */
__device__ __forceinline__ float e4m3(uint8_t x) {
  const float v = __half2float(__ushort_as_half((x & 0x80) << 8 | (x & 0x7f) << 7)) * 256.0f;
  return (x & 0x7f) == 0x7f ? __int_as_float(0x7fffffff) : v;
}

/** o = elements j..j+7 of the block at b; j is a multiple of 8. */
template <int DT> __device__ __forceinline__ void decode_block8(const uint8_t* b, int j, float (&o)[8]) {
  if constexpr (DT == Q4_0 || DT == Q4_1 || DT == Q5_0 || DT == Q5_1 || DT == IQ4_NL) {
    constexpr bool MIN = DT == Q4_1 || DT == Q5_1, FIVE = DT == Q5_0 || DT == Q5_1;
    const float d = half_at(b), m = MIN ? half_at(b + 2) : 0.0f;
    const uint8_t* q = b + 2 + (MIN ? 2 : 0);
    uint32_t high = 0;
    if constexpr (FIVE) high = u32_at(q), q += 4;
    const int shift = j >= 16 ? 4 : 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      int v = (q[(j & 15) + i] >> shift) & 15;
      if constexpr (FIVE) v |= ((high >> (j + i)) & 1) << 4;
      if constexpr (DT == IQ4_NL) o[i] = d * IQ4_VALUES[v];
      else if constexpr (MIN) o[i] = d * v + m;
      else o[i] = d * (v - (FIVE ? 16 : 8));
    }
  } else if constexpr (DT == Q8_0) {
    const float d = half_at(b);
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = d * static_cast<int8_t>(b[2 + j + i]);
  } else if constexpr (DT == Q2_K) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    const uint8_t s = b[j / 16], *q = b + 16 + 32 * (j / 128) + (j & 31);
    const int shift = 2 * ((j & 127) / 32);
    const float dl = d * (s & 15), ml = dmin * (s >> 4);
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = dl * ((q[i] >> shift) & 3) - ml;
  } else if constexpr (DT == Q3_K) {
    const uint8_t *h = b + (j & 31), *q = b + 32 + 32 * (j / 128) + (j & 31), *s = b + 96;
    const int k = j / 16, shift = 2 * ((j & 127) / 32), bit = j / 32;
    const int sc = (k < 8 ? s[k] & 15 : s[k - 8] >> 4) | ((s[8 + (k & 3)] >> (2 * (k / 4))) & 3) << 4;
    const float d = half_at(b + 108) * (sc - 32);
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = d * (((q[i] >> shift) & 3) - ((h[i] >> bit) & 1 ? 0 : 4));
  } else if constexpr (DT == Q4_K || DT == Q5_K) {
    const int s = j / 32, shift = (j & 63) >= 32 ? 4 : 0;
    float sc, mn;
    scale_min_k4(b + 4, s, sc, mn);
    const float d = half_at(b) * sc, m = half_at(b + 2) * mn;
    const uint8_t* q = b + (DT == Q5_K ? 48 : 16) + 32 * (j / 64) + (j & 31);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      int v = (q[i] >> shift) & 15;
      if constexpr (DT == Q5_K) v |= ((b[16 + (j & 31) + i] >> s) & 1) << 4;
      o[i] = d * v - m;
    }
  } else if constexpr (DT == Q6_K) {
    const int n = j / 128, k = (j & 127) / 32, l = j & 31;
    const uint8_t *ql = b + 64 * n + 32 * (k & 1) + l, *qh = b + 128 + 32 * n + l;
    const float d = half_at(b + 208) * static_cast<int8_t>(b[192 + j / 16]);
#pragma unroll
    for (int i = 0; i < 8; i++)
      o[i] = d * ((((ql[i] >> (k >= 2 ? 4 : 0)) & 15) | ((qh[i] >> (2 * k)) & 3) << 4) - 32);
  } else if constexpr (DT == IQ4_XS) {
    const int s = j / 32, high = *reinterpret_cast<const uint16_t*>(b + 2);
    const int ls = ((b[4 + s / 2] >> (4 * (s & 1))) & 15) | ((high >> (2 * s)) & 3) << 4;
    const float d = half_at(b) * (ls - 32);
    const uint8_t* q = b + 8 + 16 * s + (j & 15);
    const int shift = (j & 31) >= 16 ? 4 : 0;
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = d * IQ4_VALUES[(q[i] >> shift) & 15];
  } else if constexpr (DT == NF4) {
    const float d = __uint_as_float(u32_at(b + 32));
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = d * NF4_VALUES[(b[(j + i) / 2] >> ((j + i) & 1 ? 0 : 4)) & 15];
  } else if constexpr (DT == FP8) {
#pragma unroll
    for (int i = 0; i < 8; i++) o[i] = e4m3(b[j + i]);
  }
}

/** o = elements i..i+7 of a block-quantised array; i is a multiple of 8. */
template <int DT> __device__ __forceinline__ void decode8(const void* p, size_t i, float (&o)[8]) {
  constexpr int N = Block<DT>::N;
  decode_block8<DT>(static_cast<const uint8_t*>(p) + i / N * Block<DT>::BYTES, static_cast<int>(i % N), o);
}

/** The same with the type known at run time only; dense types need 16-byte alignment here. */
__device__ __forceinline__ void decode8_any(const void* p, int dtype, size_t i, float (&o)[8]) {
  switch (dtype) {
    case Q4_0: return decode8<Q4_0>(p, i, o);
    case Q4_1: return decode8<Q4_1>(p, i, o);
    case Q5_0: return decode8<Q5_0>(p, i, o);
    case Q5_1: return decode8<Q5_1>(p, i, o);
    case Q8_0: return decode8<Q8_0>(p, i, o);
    case Q2_K: return decode8<Q2_K>(p, i, o);
    case Q3_K: return decode8<Q3_K>(p, i, o);
    case Q4_K: return decode8<Q4_K>(p, i, o);
    case Q5_K: return decode8<Q5_K>(p, i, o);
    case Q6_K: return decode8<Q6_K>(p, i, o);
    case IQ4_NL: return decode8<IQ4_NL>(p, i, o);
    case IQ4_XS: return decode8<IQ4_XS>(p, i, o);
    case NF4: return decode8<NF4>(p, i, o);
    case FP8: return decode8<FP8>(p, i, o);
    default: return load_any<8>(p, dtype, i, o);
  }
}

/** Runs the body with DT set to the block format `dtype`. */
#define US_QUANT(dtype, DT, ...)                                      \
  switch (dtype) {                                                    \
    case Q4_0: { constexpr int DT = Q4_0; __VA_ARGS__; break; }       \
    case Q4_1: { constexpr int DT = Q4_1; __VA_ARGS__; break; }       \
    case Q5_0: { constexpr int DT = Q5_0; __VA_ARGS__; break; }       \
    case Q5_1: { constexpr int DT = Q5_1; __VA_ARGS__; break; }       \
    case Q8_0: { constexpr int DT = Q8_0; __VA_ARGS__; break; }       \
    case Q2_K: { constexpr int DT = Q2_K; __VA_ARGS__; break; }       \
    case Q3_K: { constexpr int DT = Q3_K; __VA_ARGS__; break; }       \
    case Q4_K: { constexpr int DT = Q4_K; __VA_ARGS__; break; }       \
    case Q5_K: { constexpr int DT = Q5_K; __VA_ARGS__; break; }       \
    case Q6_K: { constexpr int DT = Q6_K; __VA_ARGS__; break; }       \
    case IQ4_NL: { constexpr int DT = IQ4_NL; __VA_ARGS__; break; }   \
    case IQ4_XS: { constexpr int DT = IQ4_XS; __VA_ARGS__; break; }   \
    case NF4: { constexpr int DT = NF4; __VA_ARGS__; break; }         \
    case FP8: { constexpr int DT = FP8; __VA_ARGS__; break; }         \
    default: return unsupported("element type", dtype);               \
  }

}  // namespace us
