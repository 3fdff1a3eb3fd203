// Rows of a table by token id, and the gradient of that. One block a token; bound by memory (2 N D elements).
#include "../host/kernels.h"
#include "decode.cuh"

namespace us {
namespace {

constexpr int THREADS = 128;

template <class T, int V>
__global__ void embed_kernel(T* out, const void* table, int dtype, const int* ids, int vocab, size_t D, float scale) {
  const size_t n = blockIdx.x;
  const int id = ids[n];
  const bool known = id >= 0 && id < vocab;  // an id outside the table gives NaN, never a stray read
  const size_t row = static_cast<size_t>(known ? id : 0) * D;
  for (size_t d = threadIdx.x * V; d < D; d += THREADS * V) {
    float v[V];
    if constexpr (V == 8) decode8_any(table, dtype, row + d, v);
    else load_any<1>(table, dtype, row + d, v);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = known ? v[j] * scale : __int_as_float(0x7fffffff);
    store<V>(out + n * D + d, v);
  }
}

/** The block of an id's first occurrence adds all its occurrences in order of n: the same bits every time. */
template <class T> __global__ void __launch_bounds__(THREADS)
embed_bwd_kernel(float* dtable, const T* dout, const int* ids, int vocab, size_t N, size_t D, float scale) {
  const size_t n = blockIdx.x;
  const int id = ids[n];
  if (id < 0 || id >= vocab) return;
  int earlier = 0;
  for (size_t m = threadIdx.x; m < n; m += THREADS) earlier |= ids[m] == id;
  if (__syncthreads_or(earlier)) return;
  for (size_t m0 = n; m0 < N; m0 += THREADS) {
    const size_t mine = m0 + threadIdx.x;
    if (!__syncthreads_or(mine < N && ids[mine] == id)) continue;
    for (size_t m = m0; m < N && m < m0 + THREADS; m++) {
      if (ids[m] != id) continue;
      for (size_t d = threadIdx.x; d < D; d += THREADS) dtable[id * D + d] += scale * to_f(dout[m * D + d]);
    }
  }
}

}  // namespace

int embed(const Ten& out, const Ten& table, const Ten& ids, float scale) {
  const size_t D = out.cols;
  if (out.rows == 0) return 0;
  const bool wide = D % 8 == 0 && aligned16(out.p, table.p);
  const bool quant = is_packed(table.dtype);
  if (table.dtype > F16 && !quant) return unsupported("element type", table.dtype);
  if (quant && D % 8) return unsupported("packed rows of length", static_cast<long>(D));
  if (quant && !aligned16(out.p)) return fail(US_INVALID, "Cannot run embed: the output is not aligned to 16 bytes");
  US_FLOAT(out.dtype, T, US_WIDTH(wide || quant, V,
    embed_kernel<T, V><<<static_cast<unsigned>(out.rows), THREADS, 0, stream()>>>(
        out.as<T>(), table.p, table.dtype, ids.as<int>(), static_cast<int>(table.rows), D, scale)));
  return launched("embed");
}

int embed_bwd(const Ten& dtable, const Ten& dout, const Ten& ids, float scale) {
  if (dout.rows == 0) return 0;
  US_FLOAT(dout.dtype, T,
    embed_bwd_kernel<T><<<static_cast<unsigned>(dout.rows), THREADS, 0, stream()>>>(
        dtable.as<float>(), dout.as<T>(), ids.as<int>(), static_cast<int>(dtable.rows), dout.rows, dout.cols, scale));
  return launched("embed_bwd");
}

}  // namespace us
