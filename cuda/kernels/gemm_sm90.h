// Sums of products on Hopper: c = alpha * (a0 b0 + a1 b1 + ...) (+ addend) (+ bias), each segment with its own K. A LoRA
// linear is two segments (x W^T + xa B^T), the gradient of q, k, v's common input six: one pass over c instead of one each.
// Several products of one M go in one launch, so that their last tiles share the chip.
#pragma once
#include "gemm.h"
#include "rotation.h"

namespace us {

constexpr int MAX_SEGMENTS = 6, MAX_PRODUCTS = 3, MAX_CASTS = 16;

/** An f32 adapter rounded to 16 bits, times a factor. */
struct Cast { const float* from; void* to; size_t count; float factor; };

/** Rows of room that the scales of an e4m3 matrix of M rows have for each 128 of k: whole tiles of a product. */
constexpr size_t scale_rows(size_t M) { return (M + 255) / 256 * 256; }

/**
 * a [M,K]; b [N,K], or [K,N] when b_by_k. With scales a and b are e4m3 and b is always [N,K]: a has one for 128 elements of a
 * row, at [k / 128 * scale_rows(M) + m], b one for 128 x 128 elements, at [n / 128 * scale_n + k / 128 * scale_k].
 */
struct Segment {
  const void *a, *b;
  size_t K;
  const float *b_scale = nullptr, *a_scale = nullptr;
  int scale_n = 0, scale_k = 0;
};
struct Product {
  void* c;
  const void* bias;
  int bias_type;
  size_t N;
  float alpha;
  const void* addend;  // [M,N] added to the sums, which may be c itself; or null
  int segments;
  Segment segment[MAX_SEGMENTS];
  Rotation rotation = {};  // of sums and bias; then there is no addend
};

/** Up to MAX_CASTS casts in one launch; counts are multiples of 8. */
int cast_adapters(int dtype, const Cast* casts, int count);
/** Whether the running code is the sm_90a one: then the functions below work. */
bool has_sm90();
/** Sizes, strides and addresses that the copy engine takes. */
bool fits_sm90(size_t M, size_t N, const Segment& s, bool b_by_k);
/** Whether a product of N columns, with 8-bit weights or without, can turn heads of d features, of which 2 * half turn. */
bool rotates_sm90(size_t N, size_t d, size_t half, bool e4m3);
/** `count` products of `dtype` (BF16 or F16) with at most MAX_SEGMENTS segments together. */
int gemm_segmented(int dtype, bool b_by_k, size_t M, const Product* products, int count);
/** The same where some segments are e4m3, with scales (place_rounded in fp8.h). */
int gemm_fp8(int dtype, bool b_by_k, size_t M, const Product* products, int count);

}  // namespace us
