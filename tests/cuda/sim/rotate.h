// RoPE in whole numbers, for the operation and for products that turn their sums: cos and sin are odd numbers made of a position
// and a frequency, so that (a, b) -> (a cos - b sin, b cos + a sin) can be done before a sum is cut to 16 bits or after it.
#pragma once
#include <string.h>

#include "../../../cuda/host/library.h"
#include "../../../cuda/kernels/gemm_sm90.h"

namespace fake {

/** Tensors of the shapes that us_rope has; tests also call it with others, to see what it reads and writes. */
inline bool turns(const us::Ten& x, const us::Ten& pos, const us::Ten& freqs) {
  return x.ndim == 3 && pos.dtype == us::I32 && freqs.dtype == us::F32 && pos.numel == x.shape[0] && 2 * freqs.numel <= x.shape[2];
}

inline void fill_table(uint32_t* table, const us::Ten& pos, const us::Ten& freqs, float factor) {
  for (size_t i = 0; i < pos.numel * freqs.numel; i++) {
    uint32_t p, f;
    memcpy(&p, pos.p + i / freqs.numel * 4, 4), memcpy(&f, freqs.p + i % freqs.numel * 4, 4);
    const uint32_t angle = (p ^ p >> 15) * 2654435761u + (f ^ f >> 13) * 40503u, by = static_cast<uint32_t>(static_cast<int32_t>(factor));
    table[2 * i] = (angle | 1) * by, table[2 * i + 1] = ((angle >> 7) | 1) * by;
  }
}

/** M rows of N columns in heads of d. */
inline void rotate(uint32_t* x, size_t N, size_t M, size_t d, const us::Rotation& r) {
  const size_t half = static_cast<size_t>(r.half);
  for (size_t m = 0; m < M; m++)
    for (size_t h = 0; h < N / d; h++)
      for (size_t i = 0; i < half; i++) {
        uint32_t c, s, *a = x + m * N + h * d + i, *b = a + half;
        memcpy(&c, r.table + 2 * (m * half + i), 4), memcpy(&s, r.table + 2 * (m * half + i) + 1, 4);
        s *= static_cast<uint32_t>(static_cast<int32_t>(r.sign));
        const uint32_t turned = *a * c - *b * s;
        *b = *b * c + *a * s, *a = turned;
      }
}

}  // namespace fake
