// The 16-bit engine of Hopper: TMA into a ring of shared memory, wgmma from there, f32 sums. A block is one producer warp
// and two consumer warpgroups of 64 x BN of c; two blocks of a cluster share their B tile (each loads half for both). The
// grid is one block a multiprocessor, which walks over the tiles; c leaves through shared memory and TMA stores, which
// overlap the next tile's first loads. Arithmetic-bound: 2 M N K operations.
// Where a product has too few tiles to fill the last round over the chip, its k is cut: each part's sums go to scratch in f32, and
// a second launch adds them in order.
#include "gemm_sm90.h"

#include <limits.h>

#include "cast.cuh"
#include "gemm_tiles.cuh"

namespace us {
namespace {

using namespace tiles;

/** What is computed in one go: all of a tile's k, or of a product that is cut the steps of one part. */
struct Whole {
  static constexpr bool CUT = false;
  __device__ int count(const Params& p, int products) const { return p.tiles[products]; }
  __device__ int tile(const Params&, int t) const { return t; }
  __device__ int part(const Params&, int) const { return 0; }
  __device__ int begin(int) const { return 0; }
  __device__ int end(int) const { return INT_MAX; }
};
struct Cut {
  static constexpr bool CUT = true;
  float* sums;       // [parts, M, N]
  int parts, steps;  // steps of BK in all segments together
  __device__ int count(const Params& p, int) const { return p.tiles[1] * parts; }
  __device__ int tile(const Params& p, int t) const { return t % p.tiles[1]; }
  __device__ int part(const Params& p, int t) const { return t / p.tiles[1]; }
  __device__ int begin(int part) const { return static_cast<int>(static_cast<int64_t>(steps) * part / parts); }
  __device__ int end(int part) const { return begin(part + 1); }
};

/** Calls step(segment, k) for each step of a tile's part in turn. */
template <class Piece, class Step>
__device__ __forceinline__ void each_step(const Params& p, int product, const Piece& piece, int part, Step step) {
  const int begin = piece.begin(part), end = piece.end(part);
  int before = 0;
  for (int s = p.first[product]; s < p.first[product + 1]; s++) {
    if constexpr (Piece::CUT) {
      const int here = (p.k[s] + BK - 1) / BK, last = min(end - before, here);
      for (int i = max(begin - before, 0); i < last; i++) step(s, i * BK);
      before += here;
    } else {
      for (int k = 0; k < p.k[s]; k += BK) step(s, k);
    }
  }
}

template <class T, int BN, bool BT, class Piece>
__device__ __forceinline__ void produce(const Params& p, const Piece& piece, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  using R = Room<BN>;
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  int stage = 0, phase = 0;
  for (int t = blockIdx.x / 2; t < piece.count(p, products); t += clusters) {
    const Tile tile = tile_at(p, products, piece.tile(p, t));
    const int m = (tile.row * 2 + rank) * BM, n = tile.col * BN;
    each_step(p, tile.product, piece, piece.part(p, t), [&](int s, int k) {
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
    });
  }
}

/** Writes the sums of 64 rows from m, BN columns from n, in f32; a wgmma accumulator's layout. */
template <int BN> __device__ __forceinline__ void write_sums(const float (&acc)[BN / 2], float* sums, int M, int N, int m, int n) {
  const int row = m + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  float* to = sums + static_cast<size_t>(row) * N + n + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    if (n + j * 8 >= N) break;  // N is a multiple of 8
    if (row < M) *reinterpret_cast<float2*>(to + j * 8) = make_float2(acc[4 * j], acc[4 * j + 1]);
    if (row + 8 < M) *reinterpret_cast<float2*>(to + j * 8 + 8 * static_cast<size_t>(N)) = make_float2(acc[4 * j + 2], acc[4 * j + 3]);
  }
}

template <class T, int BN, bool BT, class Piece>
__device__ __forceinline__ void consume(const Params& p, const Piece& piece, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  using R = Room<BN>;
  const int group = threadIdx.x / 128 - 1, t128 = threadIdx.x % 128;
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  uint8_t* staged = smem + R::EPILOGUE + group * 2 * PANEL;
  auto release = [&](int stage) {
    if (t128 < 2) sm90::arrive_remote(&empty[stage], t128);
  };
  int stage = 0, phase = 0;
  float acc[BN / 2];
  for (int t = blockIdx.x / 2; t < piece.count(p, products); t += clusters) {
    const Tile tile = tile_at(p, products, piece.tile(p, t));
    int before = -1, keep = 0;
    each_step(p, tile.product, piece, piece.part(p, t), [&](int s, int k) {
      sm90::wait(&full[stage], phase);
      const uint32_t at = sm90::shared_address(smem + stage * R::STAGE);
      const uint64_t a = sm90::operand(at + group * 64 * 128, 1024, 0), b = sm90::operand(at + A_BYTES, 1024, PANEL);
      multiply_up_to_64<T, BN, BT>(acc, a, b, keep, p.k[s] - k);
      sm90::wgmma_wait<1>();
      if (before >= 0) release(before);
      before = stage, keep = 1;
      if (++stage == R::STAGES) stage = 0, phase ^= 1;
    });
    sm90::wgmma_wait<0>();
    sm90::pin(acc);
    if (before >= 0) release(before);
    const int m = (tile.row * 2 + rank) * BM + group * 64, n = tile.col * BN;
    if constexpr (Piece::CUT) {
      const size_t from = static_cast<size_t>(piece.part(p, t)) * p.M * p.N[0];
      write_sums<BN>(acc, piece.sums + from, p.M, p.N[0], m, n);
    } else {
      write_tile<T, BN, true>(acc, p, tile.product, m, n, staged);
    }
  }
  if (!Piece::CUT && t128 % 32 == 0) sm90::store_wait_read<0>();
}

template <class T, int BN, bool BT, class Piece>
__global__ void US_CLUSTER(2) __launch_bounds__(THREADS, 1)
gemm_sm90_kernel(const __grid_constant__ Params p, const Piece piece, int products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_block<BN, 40, 232>(
      [&](uint8_t* smem, uint64_t* full, uint64_t* empty) { produce<T, BN, BT>(p, piece, products, smem, full, empty); },
      [&](uint8_t* smem, uint64_t* full, uint64_t* empty) { consume<T, BN, BT>(p, piece, products, smem, full, empty); });
#endif
}

/** c from its parts' sums, eight elements a thread. */
template <class T> __global__ void __launch_bounds__(256) add_parts_kernel(Product x, const float* sums, int parts, size_t M) {
  const size_t i = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) * 8, all = M * x.N;
  if (i >= all) return;
  float y[8], v[8];
  load<8>(sums + i, y);
  for (int q = 1; q < parts; q++) {
    load<8>(sums + q * all + i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] += v[j];
  }
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float b[1] = {0.0f};
    if (x.bias) load_any<1>(x.bias, x.bias_type, i % x.N + j, b);
    y[j] = y[j] * x.alpha + b[0];
  }
  if (x.addend) {
    load<8>(static_cast<const T*>(x.addend) + i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) y[j] += v[j];
  }
  store<8>(static_cast<T*>(x.c) + i, y);
}

/** Most parts of a product, and most bytes of their sums (in a plan: workspace in cuda/mod.ts). */
constexpr int MAX_CUT = 4;
constexpr size_t MAX_SUMS = size_t{48} << 20;

int steps_of(const Product& x) {
  int steps = 0;
  for (int i = 0; i < x.segments; i++) steps += static_cast<int>(blocks(x.segment[i].K, BK));
  return steps;
}

/**
 * Microseconds in which a shape runs, about: a round of steps of 256 x 256 x 64 at 800 TFLOP/s of the chip (the rates of the two
 * widths are alike per element); with parts their sums, written and read at 1.2 TB/s, and a launch.
 */
double cost(size_t M, const Product* products, int count, int BN, int parts) {
  const size_t clusters = multiprocessors() / 2;
  size_t work = 0;
  for (int i = 0; i < count; i++) work += static_cast<size_t>(blocks(M, 2 * BM)) * blocks(products[i].N, BN) * parts;
  const double step = 0.0105 * static_cast<double>(clusters) * (BN == 256 ? 1.0 : 0.55);
  const double rounds = static_cast<double>((work + clusters - 1) / clusters) * step * steps_of(products[0]) / parts;
  return parts == 1 ? rounds : rounds + 5 + 8e-6 / 1.2 * static_cast<double>(M * products[0].N) * parts;
}

template <class T, int BN, bool BT> int run(size_t M, const Product* products, int count, int parts) {
  Params p{};
  bool ok = describe(p, M, products, count, BN);
  for (int i = 0, s = 0; i < count; i++) {
    for (int j = 0; j < products[i].segments; j++, s++) {
      const Segment& g = products[i].segment[j];
      ok = ok && map_2d(&p.a[s], g.a, M, g.K, BM);
      ok = ok && (BT ? map_2d(&p.b[s], g.b, g.K, products[i].N, 64) : map_2d(&p.b[s], g.b, products[i].N, g.K, BN / 2));
    }
  }
  const bool joined = count > 1 || products[0].segments > 1;
  if (parts == 1) {
    return launch<BN>(joined ? "joined products" : "product", ok, p.tiles[count], gemm_sm90_kernel<T, BN, BT, Whole>, p, count, Whole{});
  }
  const Product& x = products[0];
  float* sums = static_cast<float*>(scratch(SCRATCH_PARTS, parts * M * x.N * sizeof(float)));
  if (!sums) return US_MEMORY;
  const Cut cut{sums, parts, steps_of(x)};
  const int rc = launch<BN>(joined ? "joined products in parts" : "product in parts", ok, p.tiles[1] * parts,
                            gemm_sm90_kernel<T, BN, BT, Cut>, p, count, cut);
  if (rc) return rc;
  add_parts_kernel<T><<<blocks(M * x.N, 256 * 8), 256, 0, stream()>>>(x, sums, parts, M);
  return launched("sum of a product's parts");
}

/** The width of tiles and the number of parts that cost least. A product that turns its sums, or one of several, is not cut. */
template <class T, bool BT> int pick(size_t M, const Product* products, int count) {
  const Product& x = products[0];
  int best = 256, parts = 1, most = count == 1 && x.rotation.half == 0 ? MAX_CUT : 1;
  while (most > 1 && (M * x.N * most * sizeof(float) > MAX_SUMS || steps_of(x) < most)) most--;
  for (int BN : {256, 128}) {
    for (int n = 1; n <= most; n++) {
      if (cost(M, products, count, BN, n) < cost(M, products, count, best, parts)) best = BN, parts = n;
    }
  }
  return best == 256 ? run<T, 256, BT>(M, products, count, parts) : run<T, 128, BT>(M, products, count, parts);
}

struct Casts { Cast cast[MAX_CASTS]; };

template <class T> __global__ void __launch_bounds__(256) cast_kernel(Casts c) {
  round_adapter<T>(c.cast[blockIdx.y], blockIdx.x * 256 + threadIdx.x, gridDim.x * 256);
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
    return cudaFuncGetAttributes(&a, gemm_sm90_kernel<bf16, 256, false, Whole>) == cudaSuccess && a.ptxVersion >= 90;
  }();
  return here;  // false where PTX of an older target was compiled by the driver
}

bool fits_sm90(size_t M, size_t N, const Segment& s, bool) {
  return M >= 64 && N >= 64 && N % 8 == 0 && s.K % 8 == 0 && s.K > 0 && aligned16(s.a, s.b) && M < (1u << 30) && N < (1u << 30);
}

bool rotates_sm90(size_t N, size_t d, size_t half, bool e4m3) {
  return d == 2 * half && (half == 64 || (half == 32 && !e4m3)) && N % d == 0;
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
