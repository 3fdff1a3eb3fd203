// The thin products of LoRA: one side is as wide as the rank. They are bound by reading the wide side once, so products that
// share it run together.
#pragma once
#include "gemm_sm90.h"

namespace us {

constexpr int MAX_SHARING = 3;   // products over one wide matrix: q, k, v
constexpr int MAX_THIN = 3, MAX_TALL = 8;  // wide matrices of a launch

/** c[i] [M,r] = alpha[i] * a [M,K] * op(b[i]) + beta * c[i]; b [r,K], or [K,r] when by_k: f32, or on Hopper a's type. */
struct Thin {
  const void *a, *b[MAX_SHARING];
  const float* given[MAX_SHARING];  // b in f32, also where b is a rounded copy
  void *c[MAX_SHARING], *copy[MAX_SHARING];  // either may be null: where the result goes
  float alpha[MAX_SHARING];
  size_t K;
  int r, count;
  float beta;
  void* scaled[MAX_SHARING];  // or null: where the result goes times its row's rstd
  const float* stat;          // [M,2]: mean and rstd
};

/** A factor for each column: w, or 1 + w. None where p is null. */
struct Columns { const void* p; int dtype; float plus; };

/** out[i] += alpha[i] * columns * wide^T thin[i] in f32: [W,r], or [r,W] when by_rank; thin [N,r], wide [N,W]. */
struct Tall {
  const void *wide, *thin[MAX_SHARING];
  float *out[MAX_SHARING], *part;
  float alpha[MAX_SHARING];
  size_t W;
  int r, count, first_block, shares;
  bool by_rank;
  Columns columns;  // with by_rank only
};

/** y = x * w (or 1 + w) / its RMS, row by row, stat [M,2] = 0 and 1 / RMS. Absent: x is null. */
struct Normed {
  const void *x, *w;
  void* y;
  float* stat;
  int w_type;
  float eps;
  bool plus_one;
};

/**
 * All that one pass over thin.a [M,K] gives: the thin products (b in f32), tall's gradient if there is one (wide = thin.a, a
 * single thin side), a in e4m3 (fp8.h's Rounded) if there is room for it. With a norm (and then no tall) it makes a = norm.y too.
 */
struct Wide {
  Thin thin;
  Tall tall;
  uint8_t* to8;
  float* scale8;
  int r, count;  // thin's
  Normed norm;
};

/** Whether the thin product can write scaled copies of its results: a pass or a kernel of Hopper's makes it. */
bool thin_scales(const Thin& t);
/** x A^T and dy B: a, c of a 16-bit type, b f32. */
bool is_thin(const Gemm& g);
Thin thin_of(const Gemm& g);
/** dA and dB: c += alpha * a^T b in f32 with a, b of a 16-bit type, one of them as wide as the rank. */
bool is_tall(const Gemm& g);
Tall tall_of(const Gemm& g);

/** One launch; all of one dtype and layout, r * count rounded up to 16 alike. */
int run_thin(int dtype, bool by_k, size_t M, const Thin* list, int count);
/** Two launches for each width of thin sides. */
int run_tall(int dtype, size_t N, const Tall* list, int count);

/** The same by TMA and wgmma; r and count alike in a list. b is of a's type. */
bool thin_fits_sm90(const Thin& t);
int run_thin_sm90(int dtype, bool by_k, size_t M, const Thin* list, int count);
bool tall_fits_sm90(const Tall& t);
int run_tall_sm90(int dtype, size_t N, const Tall* list, int count);

/** Whether `count` thin products over t.a run as one pass; then their b stay in f32. */
bool wide_fits_sm90(const Thin& t, int count);
/** Whether rows of K can be made by the pass that multiplies them by `count` adapters; x, w and y aligned to 16 bytes. */
bool wide_norm_fits_sm90(size_t K, int count);
/** One launch, and one more for gradients. Count, gradient, room for e4m3, norm or none: alike in a list. Casts beside it. */
int run_wide_sm90(int dtype, bool by_k, size_t M, const Wide* list, int count, const Cast* casts, int cast_count);

/** The parameter gradients of a launch, by shares of the tokens whose partial sums lie in scratch. */
struct TallBatch {
  Tall p[MAX_TALL];
  size_t N, share;  // tokens a share
  int count, blocks, shares;  // shares: each p's too
};
/** Numbers the blocks of 128 columns, cuts the tokens so that whole rounds of `slots` blocks result, places the partial sums. */
bool place_shares(TallBatch& batch, int slots);
/** out[i] += alpha[i] * the sum of its shares, in order. */
int add_shares(const TallBatch& batch);

}  // namespace us
