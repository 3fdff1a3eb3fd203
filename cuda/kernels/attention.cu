// us_attention and its backward (Dao et al. 2022, FlashAttention): chooses the engine, and computes delta, the row sums of
// dOut * out that the backward of the softmax needs (one read of each).
#include "attention_mask.cuh"

namespace us {
namespace {

/** A warp a row: delta[h,n] = sum over d of dOut[n,h,:] * out[n,h,:]. */
template <class T> __global__ void __launch_bounds__(256) delta_kernel(float* delta, const T* dout, const T* out, int N, int H, int d) {
  const size_t row = static_cast<size_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (row >= static_cast<size_t>(N) * H) return;
  const int lane = threadIdx.x % 32;
  float s = 0;
  if (d % 8 == 0 && sizeof(T) == 2) {
    for (int i = lane * 8; i < d; i += 256) {
      float x[8], y[8];
      load<8>(dout + row * d + i, x), load<8>(out + row * d + i, y);
#pragma unroll
      for (int j = 0; j < 8; j++) s += x[j] * y[j];
    }
  } else {
    for (int i = lane; i < d; i += 32) s += to_f(dout[row * d + i]) * to_f(out[row * d + i]);
  }
  s = warp_sum(s);
  if (lane == 0) delta[row % H * N + row / H] = s;
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
  if (a.dtype != F32 && (attention_sm90(a, rc) || attention_mma(a, rc))) return rc;
  return attention_exact(a);
}

int attention_bwd(const Ten& dq, const Ten& dk, const Ten& dv, const Ten& dout, const Ten& q, const Ten& k, const Ten& v,
                  const Ten& out, const Ten& lse, const Ten& cu, size_t, AttnOpts o) {
  Attention a = problem(q, k, v, lse, cu, o);
  a.out = out.p, a.dout = dout.p, a.dq = dq.p, a.dk = dk.p, a.dv = dv.p;
  if (a.N == 0) return US_OK;
  a.delta = static_cast<float*>(scratch(SCRATCH_PARTS, sizeof(float) * a.N * a.H));
  if (!a.delta) return US_MEMORY;
  US_FLOAT(a.dtype, T,
    delta_kernel<T><<<blocks(static_cast<size_t>(a.N) * a.H, 8), 256, 0, stream()>>>(a.delta, dout.as<T>(), out.as<T>(), a.N,
                                                                                     a.H, a.d));
  if (const int bad = launched("attention_bwd")) return bad;
  int rc;
  if (a.dtype != F32 && (attention_sm90_bwd(a, rc) || attention_mma_bwd(a, rc))) return rc;
  return attention_exact_bwd(a);
}

}  // namespace us
