// The tensor cores of sm_80 and later through mma.sync: asynchronous copies, tiles in shared memory, fragments, products.
#pragma once
#include <type_traits>

#include "common.cuh"

namespace us {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
/** 16 bytes global to shared, zeros when `bytes` is 0. */
__device__ __forceinline__ void copy16(uint32_t dst, const void* src, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(dst), "l"(src), "r"(bytes));
}
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
template <class T> __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (sizeof(T) == 2 && std::is_same_v<T, bf16>)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/** A tile of R rows of W elements in shared memory, 16-byte chunks permuted so that ldmatrix's eight rows miss each other. */
template <int R, int W> struct Tile {
  static constexpr int CHUNKS = W / 8, BYTES = R * W * 2;
  static __device__ __forceinline__ int chunk(int row, int c) {
    constexpr int C = CHUNKS;
    return row * C + (C >= 8 ? c ^ (row & 7) : C == 4 ? c ^ ((row >> 1) & 3) : c ^ ((row >> 2) & 1));
  }
};

/** Fragments of a [16, 16] from a tile stored [m, k] at rows m.., columns k... */
template <class A> __device__ __forceinline__ void a_rows(uint32_t (&f)[4], uint32_t tile, int m, int k) {
  const int lane = threadIdx.x % 32;
  ldmatrix(f, tile + A::chunk(m + lane % 16, k / 8 + lane / 16) * 16);
}
/** The same from a tile stored [k, m]. */
template <class A> __device__ __forceinline__ void a_columns(uint32_t (&f)[4], uint32_t tile, int m, int k) {
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
  ldmatrix_trans(f, tile + A::chunk(k + q / 2 * 8 + r, m / 8 + q % 2) * 16);
}
/** Fragments of two [16, 8] at columns n.. from a tile stored [n, k]: words 0, 1 are the first, 2, 3 the second. */
template <class B> __device__ __forceinline__ void b_rows(uint32_t (&f)[4], uint32_t tile, int n, int k) {
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
  ldmatrix(f, tile + B::chunk(n + q / 2 * 8 + r, k / 8 + q % 2) * 16);
}
/** The same from a tile stored [k, n]. */
template <class B> __device__ __forceinline__ void b_columns(uint32_t (&f)[4], uint32_t tile, int n, int k) {
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
  ldmatrix_trans(f, tile + B::chunk(k + q % 2 * 8 + r, n / 8 + q / 2) * 16);
}

}  // namespace us
