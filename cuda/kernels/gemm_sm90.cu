// The 16-bit engine of Hopper: TMA into a ring of shared memory, wgmma from there, f32 sums. A block is one producer warp
// and two consumer warpgroups of 64 x BN of c; two blocks of a cluster share their B tile (each loads half for both). The
// grid is one block a multiprocessor, which walks over the tiles; c leaves through shared memory and TMA stores, which
// overlap the next tile's first loads. Arithmetic-bound: 2 M N K operations.
#include "gemm_sm90.h"

#include "gemm_epilogue.cuh"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace {

constexpr int BM = 128, BK = 64, CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1);
constexpr int A_BYTES = BM * BK * 2, PANEL = 64 * 64 * 2;

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
};

template <int BN> struct Room {
  static constexpr int B_BYTES = BN * BK * 2, STAGE = A_BYTES + B_BYTES, STAGES = BN == 256 ? 4 : 6;
  static constexpr int EPILOGUE = STAGES * STAGE, BARRIERS = EPILOGUE + CONSUMERS * 2 * PANEL;
  static constexpr int BYTES = BARRIERS + STAGES * 16 + 1024;  // and room to align to 1024
};

struct Tile { int product, row, col; };

/**
 * Cluster rows that are walked together, so that 132 blocks touch few rows and few columns at a time. 4 of 2, 4, 8, 16, 32 was
 * best over the shapes of a 3B model on an H200 (bench/cuda_peers.py gemm).
 */
constexpr int GROUP = 4;

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

/** Adds bias and addend to the sums of 64 rows from m0, BN columns from n0; a wgmma accumulator's layout. */
template <class T, int BN>
__device__ __forceinline__ void add_rest(float (&acc)[BN / 2], const Params& p, int q, int m0, int n0) {
  const int t = threadIdx.x % 128, row = m0 + t / 32 * 16 + t % 32 / 4;
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    const int col = n0 + j * 8 + t % 4 * 2;
    if (col >= p.N[q]) continue;
    if (p.bias[q]) {
      float b[2][1];
      load_any<1>(p.bias[q], p.bias_type[q], col, b[0]), load_any<1>(p.bias[q], p.bias_type[q], col + 1, b[1]);
      acc[4 * j] += b[0][0], acc[4 * j + 1] += b[1][0], acc[4 * j + 2] += b[0][0], acc[4 * j + 3] += b[1][0];
    }
    if (p.addend[q]) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if (row + 8 * h >= p.M) continue;
        const size_t i = static_cast<size_t>(row + 8 * h) * p.N[q] + col;
        const float2 c = unpack2<T>(*reinterpret_cast<const uint32_t*>(static_cast<const T*>(p.addend[q]) + i));
        acc[4 * j + 2 * h] += c.x, acc[4 * j + 2 * h + 1] += c.y;
      }
    }
  }
}

template <class T, int BN, bool BT>
__device__ __forceinline__ void produce(const Params& p, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  using R = Room<BN>;
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  int stage = 0, phase = 0;
  for (int t = blockIdx.x / 2; t < p.tiles[products]; t += clusters) {
    const Tile tile = tile_at(p, products, t);
    const int m = (tile.row * 2 + rank) * BM, n = tile.col * BN;
    for (int s = p.first[tile.product]; s < p.first[tile.product + 1]; s++) {
      for (int k = 0; k < p.k[s]; k += BK) {
        sm90::wait(&empty[stage], phase ^ 1);
        uint8_t *a = smem + stage * R::STAGE, *b = a + A_BYTES;
        sm90::expect_bytes(&full[stage], R::STAGE);
        sm90::load_2d(a, &p.a[s], &full[stage], k, m);
        if constexpr (BT) {
#pragma unroll
          for (int i = 0; i < BN / 128; i++) {
            const int panel = rank * (BN / 128) + i;
            sm90::load_2d_all(b + panel * PANEL, &p.b[s], &full[stage], 3, n + panel * 64, k);
          }
        } else {
          sm90::load_2d_all(b + rank * (R::B_BYTES / 2), &p.b[s], &full[stage], 3, k, n + rank * (BN / 2));
        }
        if (++stage == R::STAGES) stage = 0, phase ^= 1;
      }
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

template <class T, int BN, bool BT>
__device__ __forceinline__ void consume(const Params& p, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  using R = Room<BN>;
  const int group = threadIdx.x / 128 - 1, t128 = threadIdx.x % 128, warp = t128 / 32, lane = t128 % 32;
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  uint8_t* staged = smem + R::EPILOGUE + group * 2 * PANEL;
  auto release = [&](int stage) {
    if (t128 < 2) sm90::arrive_remote(&empty[stage], t128);
  };
  int stage = 0, phase = 0;
  float acc[BN / 2];
  for (int t = blockIdx.x / 2; t < p.tiles[products]; t += clusters) {
    const Tile tile = tile_at(p, products, t);
    int before = -1, keep = 0;
    for (int s = p.first[tile.product]; s < p.first[tile.product + 1]; s++) {
      for (int k = 0; k < p.k[s]; k += BK) {
        sm90::wait(&full[stage], phase);
        const uint32_t at = sm90::shared_address(smem + stage * R::STAGE);
        const uint64_t a = sm90::operand(at + group * 64 * 128, 1024, 0), b = sm90::operand(at + A_BYTES, 1024, PANEL);
        switch ((min(p.k[s] - k, BK) + 15) / 16) {  // less than 4 at the end of a K that is no multiple of 64: LoRA's rank
          case 1: multiply<T, BN, BT, 1>(acc, a, b, keep); break;
          case 2: multiply<T, BN, BT, 2>(acc, a, b, keep); break;
          case 3: multiply<T, BN, BT, 3>(acc, a, b, keep); break;
          default: multiply<T, BN, BT, 4>(acc, a, b, keep);
        }
        sm90::wgmma_wait<1>();
        if (before >= 0) release(before);
        before = stage, keep = 1;
        if (++stage == R::STAGES) stage = 0, phase ^= 1;
      }
    }
    sm90::wgmma_wait<0>();
    sm90::pin(acc);
    if (before >= 0) release(before);
    const int q = tile.product, m = (tile.row * 2 + rank) * BM + group * 64, n = tile.col * BN;
#pragma unroll
    for (int i = 0; i < BN / 2; i++) acc[i] *= p.alpha[q];
    if (p.bias[q] || p.addend[q]) add_rest<T, BN>(acc, p, q, m, n);
#pragma unroll
    for (int panel = 0; panel < BN / 64; panel++) {
      uint8_t* dst = staged + (panel & 1) * PANEL;
      if (t128 == 0) sm90::store_wait_read<1>();
      sm90::named_barrier(1 + group, 128);
      const int row = warp * 16 + lane % 16;  // lanes 0-15: the first 8 columns' rows, lanes 16-31: the next 8 columns'
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        const float* d = &acc[(panel * 8 + j) * 4];
        const uint32_t to = sm90::shared_address(dst) + row * 128 + (((j + lane / 16) ^ (row & 7)) * 16);
        store_matrices(to, pack2<T>(d[0], d[1]), pack2<T>(d[2], d[3]), pack2<T>(d[4], d[5]), pack2<T>(d[6], d[7]));
      }
      sm90::fence_async();
      sm90::named_barrier(1 + group, 128);
      if (t128 == 0 && n + panel * 64 < p.N[q] && m < p.M) sm90::store_2d(&p.c[q], dst, n + panel * 64, m);
      if (t128 == 0) sm90::store_commit();
    }
  }
  if (t128 == 0) sm90::store_wait_read<0>();
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define US_CLUSTER  // the empty kernels of older targets
#else
#define US_CLUSTER __cluster_dims__(2, 1, 1)
#endif

template <class T, int BN, bool BT>
__global__ void US_CLUSTER __launch_bounds__(THREADS, 1)
gemm_sm90_kernel(const __grid_constant__ Params p, int products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using R = Room<BN>;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - sm90::shared_address(raw) % 1024) % 1024;
  uint64_t *full = reinterpret_cast<uint64_t*>(smem + R::BARRIERS), *empty = full + R::STAGES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < R::STAGES; i++) sm90::barrier_init(&full[i], 1), sm90::barrier_init(&empty[i], 2 * CONSUMERS);
    sm90::barrier_init_fence();
  }
  sm90::cluster_sync();
  if (threadIdx.x < 128) {
    sm90::registers_down<40>();
    if (threadIdx.x == 0) produce<T, BN, BT>(p, products, smem, full, empty);
    __syncwarp();
  } else {
    sm90::registers_up<232>();
    consume<T, BN, BT>(p, products, smem, full, empty);
  }
  sm90::cluster_sync();  // no block leaves while another may still write into it
#endif
}

/** Rounds of tiles over the chip, each costing what BN costs: the measured rates of the two shapes are alike per element. */
double cost(size_t M, const Product* products, int count, int BN) {
  size_t tiles = 0;
  for (int i = 0; i < count; i++) tiles += static_cast<size_t>(blocks(M, 2 * BM)) * blocks(products[i].N, BN);
  const size_t clusters = multiprocessors() / 2, rounds = (tiles + clusters - 1) / clusters;
  return static_cast<double>(rounds) * (BN == 256 ? 2.0 : 1.1);
}

template <class T, int BN, bool BT> int run(size_t M, const Product* products, int count) {
  Params p{};
  bool ok = true;
  int s = 0;
  p.M = static_cast<int>(M), p.rows = static_cast<int>(blocks(M, 2 * BM));
  for (int i = 0; i < count; i++) {
    const Product& x = products[i];
    p.first[i] = s, p.N[i] = static_cast<int>(x.N), p.alpha[i] = x.alpha, p.addend[i] = x.addend;
    p.bias[i] = x.bias, p.bias_type[i] = x.bias_type;
    p.tiles[i + 1] = p.tiles[i] + p.rows * static_cast<int>(blocks(x.N, BN));
    ok = ok && map_2d(&p.c[i], x.c, M, x.N, 64);
    for (int j = 0; j < x.segments; j++, s++) {
      const Segment& g = x.segment[j];
      p.k[s] = static_cast<int>(g.K);
      ok = ok && map_2d(&p.a[s], g.a, M, g.K, BM);
      ok = ok && (BT ? map_2d(&p.b[s], g.b, g.K, x.N, 64) : map_2d(&p.b[s], g.b, x.N, g.K, BN / 2));
    }
  }
  p.first[count] = s;
  if (!ok) return fail(US_DEVICE, "Cannot run matmul: the driver refused a tensor map");
  const auto kernel = gemm_sm90_kernel<T, BN, BT>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Room<BN>::BYTES);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  const int most = multiprocessors() / 2 * 2, need = 2 * p.tiles[count];
  kernel<<<need < most ? need : most, THREADS, Room<BN>::BYTES, stream()>>>(p, count);
  return launched(count > 1 || products[0].segments > 1 ? "joined products" : "product");
}

template <class T, bool BT> int pick(size_t M, const Product* products, int count) {
  return cost(M, products, count, 256) <= cost(M, products, count, 128) ? run<T, 256, BT>(M, products, count)
                                                                        : run<T, 128, BT>(M, products, count);
}

struct Casts { Cast cast[MAX_CASTS]; };

template <class T> __global__ void __launch_bounds__(256) cast_kernel(Casts c) {
  const Cast& x = c.cast[blockIdx.y];
  for (size_t i = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) * 8; i < x.count; i += static_cast<size_t>(gridDim.x) * 2048) {
    float v[8];
    load<8>(x.from + i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] *= x.factor;
    store<8>(static_cast<T*>(x.to) + i, v);
  }
}

}  // namespace

int cast_adapters(int dtype, const Cast* casts, int count) {
  Casts c;
  for (int i = 0; i < count; i++) c.cast[i] = casts[i];
  if (dtype == BF16) cast_kernel<bf16><<<dim3(16, count), 256, 0, stream()>>>(c);
  else cast_kernel<f16><<<dim3(16, count), 256, 0, stream()>>>(c);
  return launched("adapter casts");
}

bool has_sm90() {
  if (capability() != 90) return false;
  static const bool here = [] {
    cudaFuncAttributes a;
    return cudaFuncGetAttributes(&a, gemm_sm90_kernel<bf16, 256, false>) == cudaSuccess && a.ptxVersion >= 90;
  }();
  return here;  // false where PTX of an older target was compiled by the driver
}

bool fits_sm90(size_t M, size_t N, const Segment& s, bool) {
  return M >= 64 && N >= 64 && N % 8 == 0 && s.K % 8 == 0 && s.K > 0 && aligned16(s.a, s.b) && M < (1u << 30) && N < (1u << 30);
}

int gemm_segmented(int dtype, bool b_by_k, size_t M, const Product* products, int count) {
  if (dtype == BF16) return b_by_k ? pick<bf16, true>(M, products, count) : pick<bf16, false>(M, products, count);
  return b_by_k ? pick<f16, true>(M, products, count) : pick<f16, false>(M, products, count);
}

bool gemm_sm90(const Gemm& g, int& rc) {
  const Segment s{g.a, g.b, g.K};
  if (!has_sm90() || g.trans_a || g.c_type != g.a_type || g.ldc != g.N || !aligned16(g.c)) return false;
  if (g.K < 64 || !fits_sm90(g.M, g.N, s, !g.trans_b)) return false;
  const Product p{g.c, g.bias, g.bias_type, g.N, g.alpha, g.beta == 0.0f ? nullptr : g.c, 1, {s}};
  rc = gemm_segmented(g.a_type, !g.trans_b, g.M, &p, 1);
  return true;
}

}  // namespace us
