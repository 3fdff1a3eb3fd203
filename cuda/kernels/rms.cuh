// The RMS norm of 16-bit rows on Hopper: its arithmetic and its order of additions. The norm runs alone (norm.cu) or in the pass
// that multiplies its result by adapters (wide_norm_sm90.cuh), and what a backward makes again must be the first to the bit; so
// both add in this order and call these functions, whose roundings the compiler does not choose.
//
// A row has eight parts, as the pass has blocks: whole stages of 128 columns. Eight threads of a part add squares, each of one
// chunk of eight columns in every 64, from left to right; then the threads' sums in a tree, then the parts in order.
#pragma once
#include "common.cuh"

namespace us {
namespace rms {

constexpr int PARTS = 8, STAGE_COLUMNS = 128, MOST_STAGES = 8;

/** Stages of a part. */
inline __host__ __device__ int stages_of(size_t K) { return static_cast<int>((K + PARTS * STAGE_COLUMNS - 1) / (PARTS * STAGE_COLUMNS)); }

__device__ __forceinline__ void add_squares(float& sum, const float (&v)[8]) {
#pragma unroll
  for (int j = 0; j < 8; j++) sum = fmaf(v[j], v[j], sum);
}
/** The sum of eight neighbouring threads. */
__device__ __forceinline__ float sum_of_eight(float x) {
#pragma unroll
  for (int o = 4; o; o >>= 1) x = __fadd_rn(x, __shfl_xor_sync(~0u, x, o));
  return x;
}
/** 1 / std from the parts, which lie `step` apart. */
__device__ __forceinline__ float rstd_of(const float* part, int step, int K, float eps) {
  float sum = 0;
#pragma unroll
  for (int b = 0; b < PARTS; b++) sum = __fadd_rn(sum, part[b * step]);
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(K)), eps)));
}
/** Eight columns; gain: the weight, or 1 + it. Adding zero makes -0 zero, as the bias does that other norms may have. */
__device__ __forceinline__ void scale_row(float (&v)[8], float rstd, const float (&gain)[8]) {
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = fmaf(__fmul_rn(v[j], rstd), gain[j], 0.0f);
}

}  // namespace rms
}  // namespace us
