// us_matmul: chooses the engine. f32 activations get exact f32 arithmetic; 16-bit ones the matrix units. A weight of another
// type is converted to the activations' type in scratch first, in pieces of at most CHUNK elements (one pass over the weight,
// small against a product over thousands of tokens); a product of few rows reads quantised weights as they are.
#include "../host/kernels.h"
#include "../host/pending.h"
#include "common.cuh"
#include "fp8.h"
#include "gemm.h"
#include "low_rank.h"

namespace us {
namespace {

/** Largest piece of a converted weight: 256 MB of scratch in 16 bits. */
constexpr size_t CHUNK = size_t{1} << 27;

int run_engine(const Gemm& g) {
  if (g.a_type == F32) return gemm_f32(g);
  int rc;
  if (gemm_sm90(g, rc)) return rc;
  return gemm_mma(g);
}

/** Rows `from`.. of b, converted to `type` in scratch. */
int convert_rows(const Ten& b, size_t from, size_t rows, int type, Ten& out) {
  Ten part = b;
  part.p += us_bytes(static_cast<uint32_t>(b.dtype), from * b.cols);
  part.rows = rows, part.numel = rows * b.cols, part.bytes = us_bytes(static_cast<uint32_t>(b.dtype), part.numel);
  out = part;
  out.dtype = type, out.bytes = us_bytes(static_cast<uint32_t>(type), out.numel);
  out.p = static_cast<char*>(scratch(SCRATCH_B, out.bytes));
  return out.p ? copy(out, part) : US_MEMORY;
}

/** The product with a weight of another type, piece by piece along its rows: columns of c (trans_b), or parts of K. */
int run_converted(Gemm g, const Ten& b, int type) {
  const size_t step = CHUNK / b.cols > 64 ? CHUNK / b.cols / 64 * 64 : 64, c_size = us_bytes(static_cast<uint32_t>(g.c_type), 1);
  if (!g.trans_b && g.trans_a && step < b.rows) return unsupported("a transposed product with a weight of elements", b.numel);
  const Gemm whole = g;
  for (size_t from = 0; from < b.rows; from += step) {
    const size_t rows = from + step < b.rows ? step : b.rows - from;
    Ten piece;
    if (const int rc = convert_rows(b, from, rows, type, piece)) return rc;
    g.b = piece.p, g.b_type = type;
    if (g.trans_b) {
      g.N = rows, g.c = static_cast<char*>(whole.c) + from * c_size;
      if (g.bias) g.bias = static_cast<const char*>(whole.bias) + from * us_bytes(static_cast<uint32_t>(g.bias_type), 1);
      if (const int rc = run_engine(g)) return rc;
    } else if (rows == b.rows) {
      return run_engine(g);
    } else {
      // a's columns from..from+rows against these rows of b, added up in c
      Ten left{};
      left.p = static_cast<char*>(scratch(SCRATCH_A, g.M * rows * us_bytes(static_cast<uint32_t>(g.a_type), 1)));
      if (!left.p) return US_MEMORY;
      const size_t e = us_bytes(static_cast<uint32_t>(g.a_type), 1);
      const cudaError_t bad = cudaMemcpy2DAsync(left.p, rows * e, static_cast<const char*>(whole.a) + from * e, whole.K * e,
                                                rows * e, g.M, cudaMemcpyDeviceToDevice, stream());
      if (bad != cudaSuccess) return cuda_error("matmul", bad);
      g.a = left.p, g.K = rows, g.beta = from ? 1.0f : whole.beta, g.bias = from ? nullptr : whole.bias;
      if (const int rc = run_engine(g)) return rc;
    }
  }
  return US_OK;
}

/** Few rows, or f32 activations, with an 8-bit base weight: the whole weight in a's type first. */
int run_dequantized(Gemm g, const Ten& b) {
  Ten w = b;
  w.dtype = g.a_type, w.bytes = us_bytes(static_cast<uint32_t>(w.dtype), w.numel);
  w.p = static_cast<char*>(scratch(SCRATCH_B, w.bytes));
  if (!w.p) return US_MEMORY;
  if (const int rc = dequantize_fp8(w, b)) return rc;
  g.b = w.p, g.b_type = w.dtype;
  return run_engine(g);
}

}  // namespace

int matmul(const Ten& c, const Ten& a, const Ten& b, const Ten& bias, bool trans_a, bool trans_b, float alpha, float beta) {
  Gemm g{a.p, b.p, bias.p, c.p, c.rows, c.cols, trans_a ? a.rows : a.cols, trans_a, trans_b,
         a.dtype, b.dtype, c.dtype, bias.dtype, alpha, beta, c.cols};
  if (a.dtype > F16 || c.dtype > F16) return unsupported("activations of element type", a.dtype > F16 ? a.dtype : c.dtype);
  if (b.dtype > F16 && !is_packed(b.dtype) && b.dtype != FP8_128) return unsupported("weights of element type", b.dtype);
  if (is_packed(b.dtype) && b.cols % 8) return unsupported("packed rows of length", static_cast<long>(b.cols));
  if (g.M == 0 || g.N == 0) return US_OK;
  int rc;
  if (defer_product(g, rc)) return rc;
  const Span reads[] = {span_of(a), span_of(b), span_of(bias)}, writes[] = {span_of(c)};
  if ((rc = settle(reads, 3, writes, 1))) return rc;
  if (b.dtype == FP8_128) return run_dequantized(g, b);
  const bool lines_up = g.K % 8 == 0 && aligned16(a.p, is_packed(b.dtype) ? nullptr : b.p);
  if (!trans_a && trans_b && g.M <= GEMV_ROWS && lines_up) return gemm_rows(g);
  if (is_thin(g)) {
    const Thin one = thin_of(g);
    return run_thin(a.dtype, !trans_b, g.M, &one, 1);
  }
  if (is_tall(g)) {
    const Tall one = tall_of(g);
    return run_tall(a.dtype, g.K, &one, 1);
  }
  if (a.dtype == F32 ? b.dtype <= F16 : b.dtype == a.dtype) return run_engine(g);
  return run_converted(g, b, a.dtype);
}

}  // namespace us
