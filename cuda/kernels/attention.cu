// us_attention and its backward (Dao et al. 2022, FlashAttention): chooses the engine, and computes delta, the row sums of
// dOut * out that the backward of the softmax needs (one read of each).
#include "attention_delta.cuh"
#include "attention_mask.cuh"

namespace us {
namespace {

/** delta[h,n] = sum over d of dOut[n,h,:] * out[n,h,:]; LANES threads of eight features a row. */
template <class T, int LANES>
__global__ void __launch_bounds__(256) delta_kernel(float* delta, const T* dout, const T* out, int N, int H, int d) {
  const size_t row = static_cast<size_t>(blockIdx.x) * (256 / LANES) + threadIdx.x / LANES;
  const bool inside = row < static_cast<size_t>(N) * H;
  const float sum = row_product<LANES>(dout, out, row, d, inside);
  if (threadIdx.x % LANES == 0 && inside) delta[row % H * N + row / H] = sum;
}

template <class T> int run_delta(const Attention& a) {
  const size_t rows = static_cast<size_t>(a.N) * a.H;
  const T *dout = static_cast<const T*>(a.dout), *out = static_cast<const T*>(a.out);
  if (a.d <= 64) delta_kernel<T, 8><<<blocks(rows, 32), 256, 0, stream()>>>(a.delta, dout, out, a.N, a.H, a.d);
  else if (a.d <= 128) delta_kernel<T, 16><<<blocks(rows, 16), 256, 0, stream()>>>(a.delta, dout, out, a.N, a.H, a.d);
  else delta_kernel<T, 32><<<blocks(rows, 8), 256, 0, stream()>>>(a.delta, dout, out, a.N, a.H, a.d);
  return launched("attention_bwd delta");
}

Attention problem(const Ten& q, const Ten& k, const Ten& v, const Ten& lse, const Ten& cu, AttnOpts o) {
  Attention a{};
  a.q = q.p, a.k = k.p, a.v = v.p, a.lse = lse.as<float>(), a.cu = cu.as<int>();
  a.N = static_cast<int>(q.shape[0]), a.H = static_cast<int>(q.shape[1]), a.K = static_cast<int>(k.shape[1]);
  a.d = static_cast<int>(q.shape[2]), a.S = static_cast<int>(cu.numel) - 1, a.o = o, a.dtype = q.dtype;
  return a;
}

}  // namespace

int attention(const Ten& out, const Ten& lse, const Ten& q, const Ten& k, const Ten& v, const Ten& cu, size_t, AttnOpts o) {
  Attention a = problem(q, k, v, lse, cu, o);
  a.out = out.p;
  if (a.N == 0) return US_OK;
  int rc;
  if (a.dtype != F32 && attention_sm90(a, rc)) return rc;
  return attention_exact(a);
}

bool attention_bwd_rotates(const Ten* t) {
  Attention a = problem(t[4], t[5], t[6], t[8], t[9], {});
  a.dq = t[0].p, a.dk = t[1].p, a.dv = t[2].p, a.dout = t[3].p, a.out = t[7].p;
  return a.dtype != F32 && a.N > 0 && (a.d == 64 || a.d == 128) && fits_sm90_bwd_once(a);
}

int attention_bwd(const Ten& dq, const Ten& dk, const Ten& dv, const Ten& dout, const Ten& q, const Ten& k, const Ten& v,
                  const Ten& out, const Ten& lse, const Ten& cu, size_t, AttnOpts o, Rotation of_dq, Rotation of_dk) {
  Attention a = problem(q, k, v, lse, cu, o);
  a.out = out.p, a.dout = dout.p, a.dq = dq.p, a.dk = dk.p, a.dv = dv.p, a.turn_q = of_dq, a.turn_k = of_dk;
  if (a.N == 0) return US_OK;
  int rc;
  if (a.dtype != F32 && attention_sm90_bwd_once(a, rc)) return rc;
  a.delta = static_cast<float*>(scratch(SCRATCH_PARTS, sizeof(float) * a.N * a.H));
  if (!a.delta) return US_MEMORY;
  if (a.dtype == F32 || a.d % 8 || !aligned16(a.dout, a.out)) return attention_exact_bwd(a);
  if ((rc = a.dtype == BF16 ? run_delta<bf16>(a) : run_delta<f16>(a))) return rc;
  return attention_sm90_bwd(a, rc) ? rc : attention_exact_bwd(a);
}

}  // namespace us
