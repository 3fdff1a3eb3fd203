// The 16-bit engine of Hopper: TMA into a ring of shared memory, wgmma from there, f32 sums. A block is one producer warp
// and two consumer warpgroups of 64 x BN of c; two blocks of a cluster share their B tile (each loads half for both). The
// grid is one block a multiprocessor, which walks over the tiles; c leaves through shared memory and TMA stores, which
// overlap the next tile's first loads. Arithmetic-bound: 2 M N K operations.
#include "gemm_sm90.h"

#include "cast.cuh"
#include "gemm_tiles.cuh"

namespace us {
namespace {

using namespace tiles;

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

template <class T, int BN, bool BT>
__device__ __forceinline__ void consume(const Params& p, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  using R = Room<BN>;
  const int group = threadIdx.x / 128 - 1, t128 = threadIdx.x % 128;
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
        multiply_up_to_64<T, BN, BT>(acc, a, b, keep, p.k[s] - k);
        sm90::wgmma_wait<1>();
        if (before >= 0) release(before);
        before = stage, keep = 1;
        if (++stage == R::STAGES) stage = 0, phase ^= 1;
      }
    }
    sm90::wgmma_wait<0>();
    sm90::pin(acc);
    if (before >= 0) release(before);
    const int m = (tile.row * 2 + rank) * BM + group * 64;
    write_tile<T, BN, true>(acc, p, tile.product, m, tile.col * BN, staged);
  }
  if (t128 % 32 == 0) sm90::store_wait_read<0>();
}

template <class T, int BN, bool BT>
__global__ void US_CLUSTER(2) __launch_bounds__(THREADS, 1)
gemm_sm90_kernel(const __grid_constant__ Params p, int products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_block<BN, 40, 232>([&](uint8_t* smem, uint64_t* full, uint64_t* empty) { produce<T, BN, BT>(p, products, smem, full, empty); },
                         [&](uint8_t* smem, uint64_t* full, uint64_t* empty) { consume<T, BN, BT>(p, products, smem, full, empty); });
#endif
}

/** What a shape costs: the measured rates of the two are alike per element. */
double cost(size_t M, const Product* products, int count, int BN) {
  return static_cast<double>(rounds_of(M, products, count, BN)) * (BN == 256 ? 2.0 : 1.1);
}

template <class T, int BN, bool BT> int run(size_t M, const Product* products, int count) {
  Params p{};
  bool ok = describe(p, M, products, count, BN);
  for (int i = 0, s = 0; i < count; i++) {
    for (int j = 0; j < products[i].segments; j++, s++) {
      const Segment& g = products[i].segment[j];
      ok = ok && map_2d(&p.a[s], g.a, M, g.K, BM);
      ok = ok && (BT ? map_2d(&p.b[s], g.b, g.K, products[i].N, 64) : map_2d(&p.b[s], g.b, products[i].N, g.K, BN / 2));
    }
  }
  return launch<BN>(count > 1 || products[0].segments > 1 ? "joined products" : "product", ok, gemm_sm90_kernel<T, BN, BT>, p, count);
}

template <class T, bool BT> int pick(size_t M, const Product* products, int count) {
  return cost(M, products, count, 256) <= cost(M, products, count, 128) ? run<T, 256, BT>(M, products, count)
                                                                        : run<T, 128, BT>(M, products, count);
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
    return cudaFuncGetAttributes(&a, gemm_sm90_kernel<bf16, 256, false>) == cudaSuccess && a.ptxVersion >= 90;
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
