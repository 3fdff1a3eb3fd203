// Products with an 8-bit base weight on Hopper: c = sum over k of a8 b8, e4m3 operands, wgmma at twice the 16-bit rate. The
// weight has one scale for 128 x 128 elements, a one for 128 of a row, so the sums of 128 of k are multiplied by both
// and added in f32 registers; that also keeps the tensor cores' short 8-bit sums short (DeepSeek-V3 report, section 3.3).
// LoRA's 16-bit segments follow in the same pass over c. Tiles, ring and epilogue are those of gemm_sm90.cu.
#include "fp8.h"
#include "gemm_tiles.cuh"

namespace us {
namespace {

using namespace tiles;

/** Columns of a tile: 128 took 203 ms for a step of Llama-3.2-3B's shape on an H100 where 256 took 194 (26 November 2026). */
constexpr int BN = 256;
using R = Room<BN>;
/** Beside the ring: of each stage the scales of the rows of a, then of b's two times 128 columns. */
constexpr int A_SCALES = R::BYTES, A_SCALES_BYTES = BM * 4, B_SCALES = A_SCALES + R::STAGES * A_SCALES_BYTES, SCALES_BYTES = R::STAGES * (A_SCALES_BYTES + 8);
static_assert(A_SCALES % 16 == 0 && R::BYTES + SCALES_BYTES <= 227 * 1024, "room for scales");

struct Scales {
  const float *a[MAX_SEGMENTS], *b[MAX_SEGMENTS];  // a: null for a 16-bit segment
  int n[MAX_SEGMENTS], k[MAX_SEGMENTS], rows;      // rows: scale_rows(M)
};

/** 128-byte steps of k: 128 elements of e4m3, 64 of 16 bits. */
__device__ __forceinline__ int steps_of(const Params& p, const Scales& f, int s) {
  return f.a[s] ? p.k[s] / 128 : (p.k[s] + BK - 1) / BK;
}

template <bool BT>
__device__ __forceinline__ void produce(const Params& p, const Scales& f, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  int stage = 0, phase = 0;
  for (int t = blockIdx.x / 2; t < p.tiles[products]; t += clusters) {
    const Tile tile = tile_at(p, products, t);
    const int m = (tile.row * 2 + rank) * BM, n = tile.col * BN;
    for (int s = p.first[tile.product]; s < p.first[tile.product + 1]; s++) {
      const int steps = steps_of(p, f, s);
      const bool by_k = BT && !f.a[s];
      const float* scale = f.b[s] + n / 128 * f.n[s];
      const int beside = n + 128 < p.N[tile.product] ? f.n[s] : 0;
      float2 next = f.a[s] ? make_float2(scale[0], scale[beside]) : float2();
      for (int i = 0; i < steps; i++) {
        sm90::wait(&empty[stage], phase ^ 1);
        if (f.a[s]) {
          *reinterpret_cast<float2*>(smem + B_SCALES + stage * 8) = next;
          if (i + 1 < steps) scale += f.k[s], next = make_float2(scale[0], scale[beside]);
        }
        uint8_t *a = smem + stage * R::STAGE, *b = a + A_BYTES;
        sm90::expect_bytes(&full[stage], R::STAGE + (f.a[s] ? A_SCALES_BYTES : 0));
        if (f.a[s]) sm90::load_bytes(smem + A_SCALES + stage * A_SCALES_BYTES, f.a[s] + static_cast<size_t>(i) * f.rows + m, A_SCALES_BYTES, &full[stage]);
        sm90::load_2d(a, &p.a[s], &full[stage], i * BK, m);  // maps count 16-bit elements, so 128 bytes are 64 of them
        if (by_k) {
#pragma unroll
          for (int j = 0; j < BN / 128; j++) {
            const int panel = rank * (BN / 128) + j;
            sm90::load_2d_all(b + panel * PANEL, &p.b[s], &full[stage], 3, n + panel * 64, i * BK);
          }
        } else {
          sm90::load_2d_all(b + rank * (R::B_BYTES / 2), &p.b[s], &full[stage], 3, i * BK, n + rank * (BN / 2));
        }
        if (++stage == R::STAGES) stage = 0, phase ^= 1;
      }
    }
  }
}

/** This warpgroup's 64 rows of a in registers: 128 of k. A matrix of ldmatrix is 8 rows of 16 bytes. */
__device__ __forceinline__ void load_rows(uint32_t (&a)[4][4], uint32_t tile) {
  const int t128 = threadIdx.x % 128, lane = t128 % 32, row = t128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const uint32_t at = tile + row * 128 + (((2 * j + lane / 16) ^ (row & 7)) * 16);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[j][0]), "=r"(a[j][1]), "=r"(a[j][2]), "=r"(a[j][3]) : "r"(at) : "memory");
  }
}

/** part = 64 rows, 64 columns, over 128 of k. */
__device__ __forceinline__ void multiply8(float (&part)[32], const uint32_t (&a)[4][4], uint64_t b) {
  sm90::wgmma_begin();
#pragma unroll
  for (int j = 0; j < 4; j++) sm90::WgmmaE4m3::rs(part, a[j], b + j * 2, j > 0);
  sm90::wgmma_commit();
}

/** Adds quarter Q's sums times the scales of their rows. */
template <int Q, int N> __device__ __forceinline__ void add_scaled(float (&acc)[N], float (&part)[32], float f0, float f1) {
  sm90::pin(part);
#pragma unroll
  for (int i = 0; i < 32; i++) acc[Q * 32 + i] = fmaf(part[i], i & 2 ? f1 : f0, acc[Q * 32 + i]);
}

/** The consumer's place in the ring. */
struct Ring {
  uint8_t* smem;
  uint64_t *full, *empty;
  int stage = 0, phase = 0;
  __device__ __forceinline__ uint32_t next_full() {
    sm90::wait(&full[stage], phase);
    return sm90::shared_address(smem + stage * R::STAGE);
  }
  __device__ __forceinline__ void pass_on() {
    if (threadIdx.x % 128 < 2) sm90::arrive_remote(&empty[stage], threadIdx.x % 128);
    if (++stage == R::STAGES) stage = 0, phase ^= 1;
  }
};

/**
 * One 8-bit segment. A step has four quarters of 64 columns; while one is added, the tensor cores fill the next, and the next
 * step's rows and their scales are under way before this one's last is added.
 */
__device__ __forceinline__ void segment8(float (&acc)[BN / 2], Ring& ring, int steps, int group) {
  uint32_t a[4][4];
  float even[32], odd[32], left0, left1, right0, right1;  // scales of two rows, of the left 128 columns and of the right
  uint64_t b;
  auto fetch = [&] {
    const uint32_t at = ring.next_full();
    b = sm90::operand(at + A_BYTES, 1024, 0);
    load_rows(a, at + group * 64 * 128);
    const int t128 = threadIdx.x % 128;
    const float* rows = reinterpret_cast<const float*>(ring.smem + A_SCALES + ring.stage * A_SCALES_BYTES) + group * 64 + t128 / 32 * 16 + t128 % 32 / 4;
    const float2 columns = *reinterpret_cast<const float2*>(ring.smem + B_SCALES + ring.stage * 8);
    left0 = rows[0] * columns.x, left1 = rows[8] * columns.x, right0 = rows[0] * columns.y, right1 = rows[8] * columns.y;
  };
  fetch();
  for (int i = 0; i < steps; i++) {
    multiply8(even, a, b);
    multiply8(odd, a, b + 512);
    sm90::wgmma_wait<1>();
    add_scaled<0>(acc, even, left0, left1);
    multiply8(even, a, b + 1024);
    sm90::wgmma_wait<1>();
    add_scaled<1>(acc, odd, left0, left1);
    multiply8(odd, a, b + 1536);
    const float last0 = right0, last1 = right1;  // the next step's are fetched before the last quarter is added
    sm90::wgmma_wait<1>();
    add_scaled<2>(acc, even, right0, right1);
#pragma unroll
    for (int j = 64; j < 96; j++) asm volatile("" : "+f"(acc[j])::"memory");  // or the compiler adds after the wait
    sm90::wgmma_wait<0>();
    sm90::pin(odd);
    ring.pass_on();
    if (i + 1 < steps) fetch();
    add_scaled<3>(acc, odd, last0, last1);
  }
}

template <class T, bool BT>
__device__ __forceinline__ void consume(const Params& p, const Scales& f, int products, uint8_t* smem, uint64_t* full, uint64_t* empty) {
  const int group = threadIdx.x / 128 - 1, t128 = threadIdx.x % 128;
  const int rank = sm90::cluster_rank(), clusters = gridDim.x / 2;
  uint8_t* staged = smem + R::EPILOGUE + group * 2 * PANEL;
  Ring ring{smem, full, empty};
  for (int t = blockIdx.x / 2; t < p.tiles[products]; t += clusters) {
    const Tile tile = tile_at(p, products, t);
    const int m = (tile.row * 2 + rank) * BM + group * 64, n = tile.col * BN;
    float acc[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; i++) acc[i] = 0;
    for (int s = p.first[tile.product]; s < p.first[tile.product + 1]; s++) {
      const int steps = steps_of(p, f, s);
      if (f.a[s]) {
        segment8(acc, ring, steps, group);
      } else {
        for (int i = 0; i < steps; i++) {
          const uint32_t at = ring.next_full();
          const uint64_t a = sm90::operand(at + group * 64 * 128, 1024, 0), b = sm90::operand(at + A_BYTES, 1024, PANEL);
          multiply_up_to_64<T, BN, BT>(acc, a, b, 1, p.k[s] - i * BK);
          sm90::wgmma_wait<0>();
          sm90::pin(acc);
          ring.pass_on();
        }
      }
    }
    write_tile<T, BN, false>(acc, p, tile.product, m, n, staged);  // with both kinds of heads the compiler spills more of an addend
  }
  if (t128 % 32 == 0) sm90::store_wait_read<0>();
}

template <class T, bool BT>
__global__ void US_CLUSTER(2) __launch_bounds__(THREADS, 1)
gemm_fp8_kernel(const __grid_constant__ Params p, const __grid_constant__ Scales f, int products) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_block<BN, 24, 240>([&](uint8_t* smem, uint64_t* full, uint64_t* empty) { produce<BT>(p, f, products, smem, full, empty); },
                         [&](uint8_t* smem, uint64_t* full, uint64_t* empty) { consume<T, BT>(p, f, products, smem, full, empty); });
#endif
}

template <class T, bool BT> int run(size_t M, const Product* products, int count) {
  Params p{};
  Scales f{};
  bool ok = describe(p, M, products, count, BN);
  f.rows = static_cast<int>(scale_rows(M));
  for (int i = 0, s = 0; i < count; i++) {
    for (int j = 0; j < products[i].segments; j++, s++) {
      const Segment& g = products[i].segment[j];
      const bool e4m3 = g.a_scale != nullptr;
      const size_t K = e4m3 ? g.K / 2 : g.K;  // in 16-bit elements
      f.a[s] = g.a_scale, f.b[s] = g.b_scale, f.n[s] = g.scale_n, f.k[s] = g.scale_k;
      ok = ok && map_2d(&p.a[s], g.a, M, K, BM);
      ok = ok && (BT && !e4m3 ? map_2d(&p.b[s], g.b, K, products[i].N, 64) : map_2d(&p.b[s], g.b, products[i].N, K, BN / 2));
    }
  }
  return launch<BN, SCALES_BYTES>("8-bit products", ok, p.tiles[count], gemm_fp8_kernel<T, BT>, p, count, f);
}

template <class T> int layout(bool b_by_k, size_t M, const Product* products, int count) {
  return b_by_k ? run<T, true>(M, products, count) : run<T, false>(M, products, count);
}

}  // namespace

int gemm_fp8(int dtype, bool b_by_k, size_t M, const Product* products, int count) {
  return dtype == BF16 ? layout<bf16>(b_by_k, M, products, count) : layout<f16>(b_by_k, M, products, count);
}

}  // namespace us
