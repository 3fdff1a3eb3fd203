// The activations of gated feed-forwards and their slopes.
#pragma once
#include "common.cuh"

namespace us {

/** To some 2 units of f32's last place, for results that are rounded to 16 bits: a division would be a third of an activation. */
__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float GELU_C = 0.7978845608028654f /* sqrt(2/pi) */, GELU_A = 0.044715f;

/** y = act(x), dy = act'(x). Exact (erf) and tanh forms of GELU: Hendrycks & Gimpel 2016. */
template <int ACT, bool EXACT> __device__ __forceinline__ void activate(float x, float& y, float& dy) {
  if constexpr (ACT == SILU) {
    const float s = EXACT ? 1.0f / (1.0f + expf(-x)) : reciprocal(1.0f + __expf(-x));
    y = x * s, dy = s * (1.0f + x * (1.0f - s));
  } else if constexpr (ACT == GELU) {
    const float c = 0.5f * (1.0f + erff(x * 0.7071067811865476f));
    y = x * c, dy = c + x * 0.3989422804014327f * expf(-0.5f * x * x);
  } else {
    const float z = GELU_C * (x + GELU_A * x * x * x), t = EXACT ? tanhf(z) : 1.0f - 2.0f * reciprocal(1.0f + __expf(2.0f * z));
    y = 0.5f * x * (1.0f + t);
    dy = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * GELU_C * (1.0f + 3.0f * GELU_A * x * x);
  }
}

}  // namespace us
