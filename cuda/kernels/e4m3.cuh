// Eight values to e4m3: y = e4m3(x * (448 / amax)), rounded to nearest even and saturated, in f32.
#pragma once
#include <cuda_fp8.h>

#include "common.cuh"

namespace us {

constexpr float LARGEST_E4M3 = 448.0f;

__device__ __forceinline__ uint16_t two_e4m3(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ uint2 eight_e4m3(const float (&v)[8], float by) {
  uint16_t h[4];
#pragma unroll
  for (int i = 0; i < 4; i++) h[i] = two_e4m3(__fmul_rn(v[2 * i], by), __fmul_rn(v[2 * i + 1], by));
  return make_uint2(h[0] | static_cast<uint32_t>(h[1]) << 16, h[2] | static_cast<uint32_t>(h[3]) << 16);
}
__device__ __forceinline__ float inverse_of(float amax) { return amax > 0 ? __fdiv_rn(LARGEST_E4M3, amax) : 0.0f; }
__device__ __forceinline__ float scale_of(float amax) { return __fdiv_rn(amax, LARGEST_E4M3); }

}  // namespace us
