// One matrix product as the engines see it, and the engines. c = alpha * op(a) * op(b) + beta * c (+ bias), f32 sums.
#pragma once
#include "../host/library.h"

namespace us {

struct Gemm {
  const void *a, *b, *bias;
  void* c;
  size_t M, N, K;
  bool trans_a, trans_b;
  int a_type, b_type, c_type, bias_type;
  float alpha, beta;
  size_t ldc;  // elements from one row of c to the next
  size_t lda() const { return trans_a ? M : K; }
  size_t ldb() const { return trans_b ? K : N; }
};

/** Any float types, f32 arithmetic without TF32. */
int gemm_f32(const Gemm& g);
/** a and b of one 16-bit type, any layout and size; mma.sync, sm_80 and later. */
int gemm_mma(const Gemm& g);
/** At most GEMV_ROWS rows of a against rows of b, which may be quantised: decoding. f32 arithmetic. */
int gemm_rows(const Gemm& g);
constexpr size_t GEMV_ROWS = 8;
/** TMA and wgmma. False when this device or this product is not for it; else rc is the status. */
bool gemm_sm90(const Gemm& g, int& rc);

}  // namespace us
