// What the Hopper attention kernels share: tiles of [rows, DP] 16-bit values in shared memory as panels of 64 features,
// their operands, accumulators as operands, and their way out. DP is the head size rounded up to 64, 128 or 256; the copy
// engine fills the features past d with zeros, which change no product, and leaves them out when it stores.
#pragma once
#include "attention_mask.cuh"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace sm90 {

constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/** Bytes of a tile of `rows` rows of DP features. */
constexpr int tile_bytes(int rows, int dp) { return rows * dp * 2; }

/** All panels of rows n.. of one head. The barrier must expect tile_bytes. */
template <int ROWS, int DP>
__device__ __forceinline__ void load_tile(uint8_t* dst, const CUtensorMap* map, uint64_t* bar, int head, int n) {
#pragma unroll
  for (int p = 0; p < DP / 64; p++) load_3d(dst + p * ROWS * 128, map, bar, p * 64, head, n);
}

/** Rows as the m or n of a product over features: 16 features from 16 * step. `address` is that of the first row. */
template <int ROWS> __device__ __forceinline__ uint64_t by_features(uint32_t address, int step) {
  return operand(address + step / 4 * ROWS * 128 + step % 4 * 32, 1024, 0);
}
/** Rows as the k of a product, features as its n: 16 rows from 16 * step. */
template <int ROWS> __device__ __forceinline__ uint64_t by_rows(uint32_t address, int step) {
  return operand(address + step * 2048, 1024, ROWS * 128);
}

/** An accumulator [64, 16] at columns 16 * step as the a of the next product. */
template <class T, int N> __device__ __forceinline__ void as_operand(uint32_t (&a)[4], const float (&s)[N], int step) {
  const float* x = &s[8 * step];
  a[0] = pack2<T>(x[0], x[1]), a[1] = pack2<T>(x[2], x[3]), a[2] = pack2<T>(x[4], x[5]), a[3] = pack2<T>(x[6], x[7]);
}

__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
/** A warpgroup's [64, DP] sums to 64 rows of a tile of ROWS rows, rounded to T; `address` is that of the first of them. */
template <class T, int ROWS, int DP> __device__ __forceinline__ void put_rows(uint32_t address, const float (&d)[DP / 2]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int j = 0; j < DP / 8; j += 2) {
    const float* x = &d[4 * j];
    const uint32_t to = address + j / 8 * ROWS * 128 + row * 128 + (((j % 8 + lane / 16) ^ (row & 7)) * 16);
    store_matrices(to, pack2<T>(x[0], x[1]), pack2<T>(x[2], x[3]), pack2<T>(x[4], x[5]), pack2<T>(x[6], x[7]));
  }
}

/** tanh through one exponential: absolute error near 1e-6, where tanh.approx has 5e-4. */
__device__ __forceinline__ float tanh_exp(float x) { return 1.0f - __fdividef(2.0f, exp2f(x * (2.0f * LOG2E)) + 1.0f); }

}  // namespace sm90
}  // namespace us
