// What the Hopper product kernels share: the list of products and tiles, the order in which tiles are walked, and how 64 rows
// of sums leave: times alpha, plus bias and addend or turned, through shared memory and TMA stores that overlap the next tile's loads.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_sm90.h"
#include "rotation.cuh"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace tiles {

/** BK: 16-bit elements of k in a stage, 128 bytes. */
constexpr int BM = 128, BK = 64, CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1);
constexpr int A_BYTES = BM * 128, PANEL = 64 * 128;

struct Params {
  CUtensorMap a[MAX_SEGMENTS], b[MAX_SEGMENTS], c[MAX_PRODUCTS];
  int k[MAX_SEGMENTS];
  int first[MAX_PRODUCTS + 1];  // segments of product p: first[p] up to first[p + 1]
  int tiles[MAX_PRODUCTS + 1];  // tiles of a cluster before product p
  int N[MAX_PRODUCTS];
  int M, rows;                  // rows: cluster rows (256 rows of c)
  float alpha[MAX_PRODUCTS];
  const void* addend[MAX_PRODUCTS];
  const void* bias[MAX_PRODUCTS];
  int bias_type[MAX_PRODUCTS];
  Rotation rotation[MAX_PRODUCTS];
};

/** Shared memory: a ring of stages with 128 bytes of k of a and b, room for c on its way out, barriers. */
template <int BN> struct Room {
  static constexpr int B_BYTES = BN * 128, STAGE = A_BYTES + B_BYTES, STAGES = BN == 256 ? 4 : 6;
  static constexpr int EPILOGUE = STAGES * STAGE, BARRIERS = EPILOGUE + CONSUMERS * 2 * PANEL;
  static constexpr int BYTES = BARRIERS + STAGES * 16;
};

struct Tile { int product, row, col; };

/**
 * Cluster rows that are walked together, so that the tiles under way touch few rows of a and few columns of b: 8 of each. With 4
 * a step of Llama-3.2-3B's shape takes 0.7 to 1 % longer on an H200 at its power limit.
 */
constexpr int GROUP = 8;

/** Which tile a number stands for: GROUP cluster rows of every column before the next rows. */
__device__ __forceinline__ Tile tile_at(const Params& p, int products, int t) {
  int q = 0;
  while (q + 1 < products && t >= p.tiles[q + 1]) q++;
  t -= p.tiles[q];
  const int cols = (p.tiles[q + 1] - p.tiles[q]) / p.rows, a_group = GROUP * cols;
  const int group = t / a_group, height = min(GROUP, p.rows - group * GROUP), rest = t - group * a_group;
  return {q, group * GROUP + rest % height, rest / height};
}

__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/** Adds the bias to 64 rows of sums, BN columns from n; a wgmma accumulator's layout. */
template <int BN> __device__ __forceinline__ void add_bias(float (&acc)[BN / 2], const Params& p, int q, int n) {
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    const int col = n + j * 8 + threadIdx.x % 4 * 2;
    if (col >= p.N[q]) continue;
    float b[2][1];
    load_any<1>(p.bias[q], p.bias_type[q], col, b[0]), load_any<1>(p.bias[q], p.bias_type[q], col + 1, b[1]);
    acc[4 * j] += b[0][0], acc[4 * j + 1] += b[1][0], acc[4 * j + 2] += b[0][0], acc[4 * j + 3] += b[1][0];
  }
}

/**
 * The addend of 64 columns from n, in pairs, where this thread's sums of rows `row` and `row + 8` lie. Outside the matrix some
 * place inside is read and what becomes of it is not stored: without branches all sixteen loads are under way at once.
 */
template <class T> __device__ __forceinline__ void load_addend(uint32_t (&v)[16], const Params& p, int q, int row, int n) {
  const T* x = static_cast<const T*>(p.addend[q]);
  const T *upper = x + static_cast<size_t>(min(row, p.M - 1)) * p.N[q], *lower = x + static_cast<size_t>(min(row + 8, p.M - 1)) * p.N[q];
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const int col = (n + j * 8 < p.N[q] ? n + j * 8 : 0) + threadIdx.x % 4 * 2;
    v[2 * j] = *reinterpret_cast<const uint32_t*>(upper + col), v[2 * j + 1] = *reinterpret_cast<const uint32_t*>(lower + col);
  }
}

/**
 * Turns the heads in 64 rows of sums, of which `row` and `row` + 8 are this thread's; BN columns from a head's first, a wgmma
 * accumulator's layout. A thread has both sums of a pair, and all heads of a row turn alike: one load serves them. Past the last
 * row some row inside is read and what becomes of it is not stored.
 */
template <int BN, int HALF> __device__ __forceinline__ void rotate(float (&acc)[BN / 2], const Rotation& r, int row, int M) {
  constexpr int OWN = HALF / 2;  // this thread's sums in half a head
  const float4* table = reinterpret_cast<const float4*>(r.table) + threadIdx.x % 4;
  const float4 *upper = table + static_cast<size_t>(min(row, M - 1)) * (HALF / 2), *lower = table + static_cast<size_t>(min(row + 8, M - 1)) * (HALF / 2);
  float4 up[OWN / 4], low[OWN / 4];
#pragma unroll
  for (int j = 0; j < OWN / 4; j++) up[j] = __ldg(upper + j * 4), low[j] = __ldg(lower + j * 4);
#pragma unroll
  for (int j = 0; j < OWN / 4; j++) {
    const float4 u = up[j], l = low[j];
#pragma unroll
    for (int i = 4 * j; i < BN / 2; i += 2 * OWN) {
      turn(acc[i], acc[i + OWN], u.x, u.y * r.sign), turn(acc[i + 1], acc[i + OWN + 1], u.z, u.w * r.sign);
      turn(acc[i + 2], acc[i + OWN + 2], l.x, l.y * r.sign), turn(acc[i + 3], acc[i + OWN + 3], l.z, l.w * r.sign);
    }
  }
}

/**
 * STEPS products of 16 of k. Begin and commit stand in one straight line with them: with a branch between, the compiler
 * commits twice and every wait becomes a wait for all.
 */
template <class T, int BN, bool BT, int STEPS>
__device__ __forceinline__ void multiply(float (&acc)[BN / 2], uint64_t a, uint64_t b, int keep) {
  sm90::wgmma_begin();
#pragma unroll
  for (int i = 0; i < STEPS; i++) sm90::Wgmma<T, BN, BT>::ss(acc, a + i * 2, b + i * (BT ? 128 : 2), i == 0 ? keep : 1);
  sm90::wgmma_commit();
}

/** `left` is less than 64 at the end of a K that is no multiple of it: LoRA's rank. */
template <class T, int BN, bool BT>
__device__ __forceinline__ void multiply_up_to_64(float (&acc)[BN / 2], uint64_t a, uint64_t b, int keep, int left) {
  switch ((min(left, BK) + 15) / 16) {
    case 1: multiply<T, BN, BT, 1>(acc, a, b, keep); break;
    case 2: multiply<T, BN, BT, 2>(acc, a, b, keep); break;
    case 3: multiply<T, BN, BT, 3>(acc, a, b, keep); break;
    default: multiply<T, BN, BT, 4>(acc, a, b, keep);
  }
}

/**
 * Writes the sums of 64 rows from m, BN columns from n, of product q; a wgmma accumulator's layout. Each warp sends its 16 rows
 * through room of its own (two panels of 64 columns), so that none waits for another; `staged` is the warpgroup's. SMALL_HEADS: of
 * 64 features may turn too.
 */
template <class T, int BN, bool SMALL_HEADS>
__device__ __forceinline__ void write_tile(float (&acc)[BN / 2], const Params& p, int q, int m, int n, uint8_t* staged) {
  constexpr int ROOM = 16 * 128;
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, row = lane % 16;
  uint8_t* own = staged + warp * 2 * ROOM;
  m += warp * 16;
  uint32_t more[16];
  if (p.addend[q]) load_addend<T>(more, p, q, m + lane / 4, n);
#pragma unroll
  for (int i = 0; i < BN / 2; i++) acc[i] *= p.alpha[q];
  if (p.bias[q]) add_bias<BN>(acc, p, q, n);
  if (p.rotation[q].half == 64) rotate<BN, 64>(acc, p.rotation[q], m + lane / 4, p.M);
  else if (SMALL_HEADS && p.rotation[q].half == 32) rotate<BN, 32>(acc, p.rotation[q], m + lane / 4, p.M);
#pragma unroll
  for (int panel = 0; panel < BN / 64; panel++) {
    uint8_t* dst = own + (panel & 1) * ROOM;
    if (p.addend[q]) {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        const float2 x = unpack2<T>(more[i]);
        acc[panel * 32 + 2 * i] += x.x, acc[panel * 32 + 2 * i + 1] += x.y;
      }
      if (panel + 1 < BN / 64) load_addend<T>(more, p, q, m + lane / 4, n + (panel + 1) * 64);
    }
    if (lane == 0) sm90::store_wait_read<1>();
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 8; j += 2) {  // lanes 0-15: the first 8 columns' rows, lanes 16-31: the next 8 columns'
      const float* d = &acc[(panel * 8 + j) * 4];
      const uint32_t to = sm90::shared_address(dst) + row * 128 + (((j + lane / 16) ^ (row & 7)) * 16);
      store_matrices(to, pack2<T>(d[0], d[1]), pack2<T>(d[2], d[3]), pack2<T>(d[4], d[5]), pack2<T>(d[6], d[7]));
    }
    sm90::fence_async();
    __syncwarp();
    if (lane == 0) {
      if (n + panel * 64 < p.N[q] && m < p.M) sm90::store_2d(&p.c[q], dst, n + panel * 64, m);
      sm90::store_commit();
    }
  }
}

/** What does not depend on the types of a and b; false when the driver refuses a tensor map. */
inline bool describe(Params& p, size_t M, const Product* products, int count, int BN) {
  bool ok = true;
  int s = 0;
  p.M = static_cast<int>(M), p.rows = static_cast<int>(blocks(M, 2 * BM));
  for (int i = 0; i < count; i++) {
    const Product& x = products[i];
    p.first[i] = s, p.N[i] = static_cast<int>(x.N), p.alpha[i] = x.alpha, p.addend[i] = x.addend;
    p.bias[i] = x.bias, p.bias_type[i] = x.bias_type, p.rotation[i] = x.rotation;
    p.tiles[i + 1] = p.tiles[i] + p.rows * static_cast<int>(blocks(x.N, BN));
    ok = ok && map_2d(&p.c[i], x.c, M, x.N, 16);
    for (int j = 0; j < x.segments; j++) p.k[s++] = static_cast<int>(x.segment[j].K);
  }
  p.first[count] = s;
  return ok;
}

/** Blocks of a launch over so many tiles: one a multiprocessor, in pairs. */
inline int grid_of(int tiles) {
  const int most = multiprocessors() / 2 * 2, need = 2 * tiles;
  return need < most ? need : most;
}

/**
 * A block: shared memory, barriers, then a producer thread and the consumer warpgroups, which share its registers as DOWN and UP
 * say. Both are called with the ring's memory and its barriers full, empty.
 */
template <int BN, int DOWN, int UP, class Produce, class Consume> __device__ __forceinline__ void run_block(Produce produce, Consume consume) {
  using R = Room<BN>;
  extern __shared__ __align__(1024) uint8_t smem[];
  if (sm90::shared_address(smem) % 1024) __trap();  // swizzled tiles would be read wrong
  uint64_t *full = reinterpret_cast<uint64_t*>(smem + R::BARRIERS), *empty = full + R::STAGES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < R::STAGES; i++) sm90::barrier_init(&full[i], 1), sm90::barrier_init(&empty[i], 2 * CONSUMERS);
    sm90::barrier_init_fence();
  }
  sm90::cluster_sync();
  if (threadIdx.x < 128) {
    sm90::registers_down<DOWN>();
    if (threadIdx.x == 0) produce(smem, full, empty);
    __syncwarp();
  } else {
    sm90::registers_up<UP>();
    consume(smem, full, empty);
  }
  sm90::cluster_sync();  // no block leaves while another may still write into it
}

/** Launches a kernel of such blocks over `tiles`, with ROOM more bytes of shared memory; `ok`: the driver took its tensor maps. */
template <int BN, int ROOM = 0, class Kernel, class... More>
int launch(const char* what, bool ok, int tiles, Kernel kernel, const Params& p, int count, const More&... more) {
  if (!ok) return fail(US_DEVICE, "Cannot run matmul: the driver refused a tensor map");
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Room<BN>::BYTES + ROOM);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  kernel<<<grid_of(tiles), THREADS, Room<BN>::BYTES + ROOM, stream()>>>(p, more..., count);
  return launched(what);
}

}  // namespace tiles
}  // namespace us
