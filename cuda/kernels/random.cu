// What draws numbers: dropout and NEFTune's noise, from the counter-based generator of core/philox.ts. The same seed, stream and
// element give the same number in every pass and on every backend. Bound by memory; four elements a thread share a draw.
#include "../host/kernels.h"
#include "each.cuh"

namespace us {
namespace {

/** Philox4x32-10 (Salmon et al. 2011), word `element & 3` of counter (element >> 2, stream, 0, 0): core/philox.ts. */
__device__ __forceinline__ uint4 philox(uint32_t c0, uint32_t c1, uint32_t k0, uint32_t k1) {
  uint32_t c2 = 0, c3 = 0;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t h0 = __umulhi(0xd2511f53u, c0), l0 = 0xd2511f53u * c0;
    const uint32_t h1 = __umulhi(0xcd9e8d57u, c2), l1 = 0xcd9e8d57u * c2;
    c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return make_uint4(c0, c1, c2, c3);
}

}  // namespace

int dropout(const Ten& out, const Ten& x, const Ten& seed, uint32_t stream_id, uint32_t threshold, float factor) {
  const size_t n = out.numel;
  const uint32_t* key = seed.as<uint32_t>();
  US_FLOAT(out.dtype, T, {
    T *po = out.as<T>(), *px = x.as<T>();
    return each<4>("dropout", n, [=] __device__(size_t i) {
      const uint4 r = philox(static_cast<uint32_t>(i >> 2), stream_id, key[0], key[1]);
      const uint32_t w[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (i + j < n) po[i + j] = w[j] >= threshold ? from_f<T>(to_f(px[i + j]) * factor) : from_f<T>(0.0f);
    });
  });
  return 0;
}

int noise(const Ten& out, const Ten& x, const Ten& magnitude, const Ten& seed, uint32_t stream_id) {
  const size_t n = out.numel, D = out.cols;
  const uint32_t* key = seed.as<uint32_t>();
  const float* size = magnitude.as<float>();
  US_FLOAT(out.dtype, T, {
    T *po = out.as<T>(), *px = x.as<T>();
    return each<4>("noise", n, [=] __device__(size_t i) {
      const uint4 r = philox(static_cast<uint32_t>(i >> 2), stream_id, key[0], key[1]);
      const uint32_t w[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (i + j >= n) break;
        // (2 w + 1) / 2^32 - 1, with w's top bit as the sign
        const float u = (static_cast<float>(static_cast<int32_t>(w[j] ^ 0x80000000u)) + 0.5f) * 4.656612873077393e-10f;
        po[i + j] = from_f<T>(to_f(px[i + j]) + size[(i + j) / D] * u);
      }
    });
  });
  return 0;
}

}  // namespace us
