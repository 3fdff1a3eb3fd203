// A pair turned, where matrix units left it.
#pragma once
#include "common.cuh"
#include "rotation.h"

namespace us {

/** (a, b) turned, in place by words to the compiler: left to itself it moves sums about and spills them (46 of a tile of 64 x 256). */
__device__ __forceinline__ void turn(float& a, float& b, float cosine, float sine) {
  asm("{\n .reg .f32 x, y;\n mul.f32 x, %1, %3;\n mul.f32 y, %0, %3;\n neg.f32 x, x;\n"
      " fma.rn.f32 %0, %0, %2, x;\n fma.rn.f32 %1, %1, %2, y;\n}" : "+f"(a), "+f"(b) : "f"(cosine), "f"(sine));
}

/**
 * Turns an accumulator of COLUMNS columns, column c with c + COLUMNS / 2, of heads with 2 * HALF features; column 0 is feature
 * `first`. Rows `row` and `row` + 8 are this thread's; past the last some row inside is read.
 */
template <int COLUMNS, int HALF> __device__ __forceinline__ void turn_rows(float (&d)[COLUMNS / 2], const Rotation& r, int row, int N, int first) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const float4* table = reinterpret_cast<const float4*>(r.table) + static_cast<size_t>(min(row + 8 * h, N - 1)) * (HALF / 2) + first / 2 + threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < COLUMNS / 16; i++) {
      const float4 t = __ldg(table + 4 * i);
      float *a = &d[4 * i + 2 * h], *b = &d[4 * (i + COLUMNS / 16) + 2 * h];
      turn(a[0], b[0], t.x, t.y * r.sign), turn(a[1], b[1], t.z, t.w * r.sign);
    }
  }
}

}  // namespace us
