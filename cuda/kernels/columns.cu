// Sums down the columns of [N,D]: colSum, colDot, and the norm's dw, db. Each block sums a chunk of rows for 64 or 256
// columns into scratch, a second launch adds the chunks in order: the same bits every time, one read of the input.
#include "../host/kernels.h"
#include "common.cuh"

namespace us {
namespace {

constexpr int COLS = 64, LANES = 8, ROWS_A_CHUNK = 256;

struct ColArgs {
  const void *a, *b;   // b: null for plain sums
  const float* stat;   // norm: mean and 1/std of each row of b
  size_t N, D;
};

/** part[chunk][d] = sum over the chunk's rows; WHAT 0: a, 1: a*b, 2: a*(b-mean)*rstd. */
template <class T, int WHAT> __global__ void __launch_bounds__(COLS * LANES) column_kernel(float* part, ColArgs g) {
  __shared__ float lanes[LANES][COLS];
  const int c = threadIdx.x % COLS, lane = threadIdx.x / COLS;
  const size_t d = static_cast<size_t>(blockIdx.x) * COLS + c, from = static_cast<size_t>(blockIdx.y) * ROWS_A_CHUNK;
  const size_t to = min(from + ROWS_A_CHUNK, g.N);
  float s = 0;
  if (d < g.D)
    for (size_t n = from + lane; n < to; n += LANES) {
      const float a = to_f(static_cast<const T*>(g.a)[n * g.D + d]);
      if constexpr (WHAT == 0) s += a;
      if constexpr (WHAT == 1) s += a * to_f(static_cast<const T*>(g.b)[n * g.D + d]);
      if constexpr (WHAT == 2)
        s += a * (to_f(static_cast<const T*>(g.b)[n * g.D + d]) - g.stat[2 * n]) * g.stat[2 * n + 1];
    }
  lanes[lane][c] = s;
  __syncthreads();
  if (lane == 0 && d < g.D) {
    for (int i = 1; i < LANES; i++) s += lanes[i][c];
    part[blockIdx.y * g.D + d] = s;
  }
}

__global__ void add_chunks_kernel(float* out, const float* part, size_t chunks, size_t D) {
  const size_t d = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (d >= D) return;
  float s = 0;
  for (size_t i = 0; i < chunks; i++) s += part[i * D + d];
  out[d] += s;
}

template <class T, int WHAT> int column(const char* op, float* out, ColArgs g) {
  if (g.N == 0) return 0;
  const size_t chunks = blocks(g.N, ROWS_A_CHUNK);
  float* part = static_cast<float*>(scratch(SCRATCH_PARTS, chunks * g.D * sizeof(float)));
  if (!part) return US_MEMORY;
  column_kernel<T, WHAT><<<dim3(blocks(g.D, COLS), static_cast<unsigned>(chunks)), COLS * LANES, 0, stream()>>>(part, g);
  add_chunks_kernel<<<blocks(g.D, 256), 256, 0, stream()>>>(out, part, chunks, g.D);
  return launched(op);
}

}  // namespace

int col_sum(const Ten& out, const Ten& x) {
  US_FLOAT(x.dtype, T, return (column<T, 0>("col_sum", out.as<float>(), {x.p, nullptr, nullptr, x.rows, x.cols})));
  return 0;
}

int col_dot(const Ten& out, const Ten& a, const Ten& b) {
  US_FLOAT(a.dtype, T, return (column<T, 1>("col_dot", out.as<float>(), {a.p, b.p, nullptr, a.rows, a.cols})));
  return 0;
}

int norm_weight_bwd(const Ten& dw, const Ten& db, const Ten& dout, const Ten& x, const Ten& stat) {
  const ColArgs g{dout.p, x.p, stat.as<float>(), x.rows, x.cols};
  US_FLOAT(x.dtype, T, {
    if (dw)
      if (const int rc = column<T, 2>("norm_bwd", dw.as<float>(), g)) return rc;
    if (db) return (column<T, 0>("norm_bwd", db.as<float>(), g));
  });
  return 0;
}

}  // namespace us
