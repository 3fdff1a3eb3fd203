// Hopper's own instructions in C++ clothes: mbarriers, the tensor copy engine (TMA), warpgroup products (wgmma), cluster
// and register hints. Names and operands follow the PTX ISA 8.x chapters of the same instructions.
#pragma once
#include <cuda.h>

#include "common.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define US_CLUSTER(blocks)  // the empty kernels of older targets
#else
#define US_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#endif

namespace us {
namespace sm90 {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// ---- mbarriers: 8 bytes of shared memory; a phase ends when all arrivals and all announced bytes are in ----

__device__ __forceinline__ void barrier_init(uint64_t* bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals));
}
/** Makes the barriers' initialisation visible to the copy engine and to the cluster. */
__device__ __forceinline__ void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void expect_bytes(uint64_t* bar, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void arrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
/**
 * Arrives at the same barrier of another block of the cluster. Without `.release.cluster`, which would put a fence of the
 * whole GPU before each arrival (a quarter of a product's time): what is handed back was read, not written.
 */
__device__ __forceinline__ void arrive_remote(uint64_t* bar, uint32_t block) {
  asm volatile(
      "{\n .reg .b32 remote;\n mapa.shared::cluster.u32 remote, %0, %1;\n"
      " mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(bar)), "r"(block) : "memory");
}
/** The address of the same place in another block of the cluster. */
__device__ __forceinline__ uint32_t remote_address(const void* p, uint32_t block) {
  uint32_t a;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(a) : "r"(shared_address(p)), "r"(block));
  return a;
}
/**
 * A store there, whose bytes the barrier `bar` beside it (both remote_addresses of one block) awaits: value and arrival in one.
 * An arrival with `.release.cluster` waits for all that this thread ever stored: 14.6 ms a step for 11.8 (wide_sm90.cu).
 */
__device__ __forceinline__ void store_remote(uint32_t address, float x, uint32_t bar) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(address), "f"(x), "r"(bar) : "memory");
}
__device__ __forceinline__ void store_remote(uint32_t address, float x, float y, uint32_t bar) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(address), "f"(x), "f"(y), "r"(bar)
               : "memory");
}
/** `wait` that sees what other blocks of the cluster stored. */
__device__ __forceinline__ void wait_remote(uint64_t* bar, uint32_t parity) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      " @done bra over;\n bra again;\nover:\n}" ::"r"(shared_address(bar)), "r"(parity) : "memory");
}
/** Waits until the phase of that parity has ended. */
__device__ __forceinline__ void wait(uint64_t* bar, uint32_t parity) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @done bra over;\n bra again;\nover:\n}" ::"r"(shared_address(bar)), "r"(parity) : "memory");
}
// ---- tensor copies ----

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void load_2d(void* dst, const CUtensorMap* map, uint64_t* bar, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
                   shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y) : "memory");
}
/** `bytes` in a row, a multiple of 16, from and to a multiple of 16. */
__device__ __forceinline__ void load_bytes(void* dst, const void* src, uint32_t bytes, uint64_t* bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(dst)), "l"(src),
               "r"(bytes), "r"(shared_address(bar)) : "memory");
}
/** The same box into the same place of every block of the cluster in `blocks`, each block's own barrier told. */
__device__ __forceinline__ void load_2d_all(void* dst, const CUtensorMap* map, uint64_t* bar, uint16_t blocks, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(
          shared_address(dst)), "l"(map), "r"(shared_address(bar)), "h"(blocks), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void load_3d(void* dst, const CUtensorMap* map, uint64_t* bar, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
                   shared_address(dst)), "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void store_2d(const CUtensorMap* map, const void* src, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(src)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void store_3d(const CUtensorMap* map, const void* src, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(shared_address(src)), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/** Until at most N committed stores still read their shared memory. */
template <int N> __device__ __forceinline__ void store_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }
/** Ordinary stores to shared memory become visible to the copy engine and to wgmma. */
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- clusters, warpgroups, registers ----

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_sync() { cluster_arrive(), cluster_wait(); }
/** A barrier of some warps of the block; ids 1 to 15. */
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/** Arrives at such a barrier without waiting. */
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/**
 * Two warpgroups (0, 1) in turn: each issues its products while the other does its arithmetic, instead of both at once
 * (Shah et al. 2024, section 3.1). Group 1 calls `begin` once; both call wait and pass equally often.
 */
struct Turn {
  int group;
  __device__ __forceinline__ void begin() const { if (group == 1) named_arrive(4, 256); }
  __device__ __forceinline__ void wait() const { named_barrier(4 + group, 256); }
  __device__ __forceinline__ void pass() const { named_arrive(5 - group, 256); }
};
template <int N> __device__ __forceinline__ void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// ---- wgmma: d[64, N] += a[64, 16] b[16, N], a and b in shared memory (or a in registers), f32 sums ----

/**
 * Describes a 128-byte-swizzled operand. K-major (rows of 64 elements of k): `rows8` = bytes between groups of 8 rows,
 * `panel` unused. MN-major (rows of 64 elements of m or n, one row a k): `rows8` = bytes between groups of 8 k,
 * `panel` = bytes between panels of 64.
 */
__device__ __forceinline__ uint64_t operand(uint32_t address, uint32_t rows8, uint32_t panel) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(panel >> 4) << 16 |
         static_cast<uint64_t>(rows8 >> 4) << 32 | 1ull << 62;
}
/**
 * The same for rows of R = 16, 32 or 64 elements and a swizzle as wide as the row: of n, one row a k (MN-major, a single panel), or
 * of k (K-major).
 */
template <int R> __device__ __forceinline__ uint64_t narrow_operand(uint32_t address) {
  constexpr uint64_t LAYOUT = R == 16 ? 3 : R == 32 ? 2 : 1;
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(R * 16 >> 4) << 32 | LAYOUT << 62;
}
__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
/** Keeps the compiler from moving uses of accumulators across a wait. */
template <int N> __device__ __forceinline__ void pin(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#include "wgmma.inc"

}  // namespace sm90
}  // namespace us
