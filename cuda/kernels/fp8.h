// The 8-bit base weight ("fp8_128"): e4m3 values with one f32 scale for 128 x 128 elements (amax / 448), kept twice, as [R,C]
// and transposed, because wgmma takes 8-bit operands K-major only: the forward reads one, the input gradient the other.
//   e4m3 [R,C] | e4m3 [C,R] | f32 [R/128, C/128]; R and C are multiples of 128
#pragma once
#include "gemm_sm90.h"

namespace us {

/** out [R,C], dense, = values times scales. */
int dequantize_fp8(const Ten& out, const Ten& w);
/** The segment of a product with such a weight: trans_b reads [R,C] as [N,K], else its transpose. */
Segment fp8_segment(const Gemm& g);

/**
 * A matrix [M,K] of 16 bits and its place in 8, with one scale (amax / 448) for 128 elements of a row, at [k / 128 * scale_rows(M) + m].
 * `done`: somebody else fills it.
 */
struct Rounded {
  const void* from;
  size_t K;
  uint8_t* to;
  float* scale;
  bool done;
};
/** Gives the inputs of e4m3 segments room in scratch, equal ones once, and points the segments there; n of them in `list`. */
int place_rounded(size_t M, Product* products, int count, Rounded* list, int& n);
/** Fills those that are not done: a launch that reads each. */
int round_inputs(int dtype, size_t M, const Rounded* list, int count);

}  // namespace us
