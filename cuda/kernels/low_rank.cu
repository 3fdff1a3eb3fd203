// The thin products of LoRA on mma.sync. Forward and input gradient (thin): 64 rows of the wide matrix a block, its columns
// streamed through shared memory by cp.async together with the f32 adapters, which are rounded to 16 bits as fragments.
// Parameter gradients (tall): 128 columns and a share of the tokens a block, f32 partial sums in scratch, added in order by a
// second launch. Bound by reading the wide matrix: 50 MB and 12 us for [8192, 3072] on an H200.
#include "low_rank.h"

#include <algorithm>

#include "mma.cuh"

namespace us {
namespace {

constexpr int THREADS = 256, MAX_RANK = 64;

int width_of(int r, int count) { return (r * count + 15) / 16 * 16; }
bool is_rank(size_t r) { return r % 8 == 0 && r > 0 && r <= MAX_RANK; }

/** Runs the body with R set to the width 16, 32, 48 or 64. */
#define US_WIDTH_R(width, R, ...)                                  \
  switch (width) {                                                 \
    case 16: { constexpr int R = 16; __VA_ARGS__; break; }         \
    case 32: { constexpr int R = 32; __VA_ARGS__; break; }         \
    case 48: { constexpr int R = 48; __VA_ARGS__; break; }         \
    default: { constexpr int R = 64; __VA_ARGS__; break; }         \
  }

// ---- x A^T, dy B ----

struct ThinBatch { Thin p[MAX_THIN]; size_t M; };

constexpr int ROWS = 64, CHUNK = 128;  // of a: rows a block, columns a stage

/** Stages of shared memory: columns of a as 16-bit tiles, the same part of b as padded rows of f32. */
template <int R, bool BY_K> struct ThinRoom {
  using A = Tile<ROWS, CHUNK>;
  static constexpr int PITCH = BY_K ? R + 4 : CHUNK + 4;  // floats; the pad keeps a fragment's reads in different banks
  static constexpr int B_BYTES = (BY_K ? CHUNK : R) * PITCH * 4, STAGE = A::BYTES + B_BYTES, STAGES = 3;
};

/** The larger of the two layouts. */
size_t thin_room(size_t r) {
  US_WIDTH_R(width_of(static_cast<int>(r), 1), R, return ThinRoom<R, true>::STAGES * ThinRoom<R, true>::STAGE);
}

template <class T, int R, bool BY_K> __global__ void __launch_bounds__(THREADS) thin_kernel(const __grid_constant__ ThinBatch batch) {
  using Room = ThinRoom<R, BY_K>;
  using A = typename Room::A;
  constexpr int STAGES = Room::STAGES;
  extern __shared__ __align__(128) uint8_t smem[];
  const Thin& g = batch.p[blockIdx.y];
  const uint32_t base = shared_address(smem);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, m = warp % 4 * 16, k_half = warp / 4 * (CHUNK / 2);
  const size_t m0 = static_cast<size_t>(blockIdx.x) * ROWS, M = batch.M;
  const T* a = static_cast<const T*>(g.a);
  const int steps = static_cast<int>((g.K + CHUNK - 1) / CHUNK), width = g.r * g.count;

  auto fetch = [&](int step) {
    const size_t k0 = static_cast<size_t>(step) * CHUNK;
    const uint32_t to = base + step % STAGES * Room::STAGE, to_b = to + A::BYTES;
#pragma unroll
    for (int i = 0; i < ROWS * A::CHUNKS / THREADS; i++) {
      const int e = threadIdx.x + i * THREADS, row = e / A::CHUNKS, c = e % A::CHUNKS;
      const bool in = m0 + row < M && k0 + c * 8 < g.K;
      copy16(to + A::chunk(row, c) * 16, in ? a + (m0 + row) * g.K + k0 + c * 8 : a, in ? 16 : 0);
    }
#pragma unroll
    for (int i = 0; i < CHUNK * R / 4 / THREADS; i++) {
      const int e = threadIdx.x + i * THREADS;
      const int j = BY_K ? e % (R / 4) * 4 : e / (CHUNK / 4), kk = BY_K ? e / (R / 4) : e % (CHUNK / 4) * 4;
      const bool in = j < width && k0 + kk < g.K;
      const int which = in ? j / g.r : 0, col = j - which * g.r;
      const float* from = static_cast<const float*>(g.b[which]) + (in ? BY_K ? (k0 + kk) * g.r + col : col * g.K + k0 + kk : 0);
      copy16(to_b + ((BY_K ? kk * Room::PITCH + j : j * Room::PITCH + kk) * 4), from, in ? 16 : 0);
    }
  };

  float acc[R / 8][4] = {};
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) fetch(s);
    asm volatile("cp.async.commit_group;\n" ::);
  }
  for (int s = 0; s < steps; s++) {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 2));
    __syncthreads();
    if (s + STAGES - 1 < steps) fetch(s + STAGES - 1);
    asm volatile("cp.async.commit_group;\n" ::);
    const int at = s % STAGES * Room::STAGE;
    const float* b = reinterpret_cast<const float*>(smem + at + A::BYTES);
#pragma unroll
    for (int k = k_half; k < k_half + CHUNK / 2; k += 16) {
      uint32_t fa[4];
      a_rows<A>(fa, base + at, m, k);
      const int kt = k + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < R / 8; j++) {
        const int n = j * 8 + lane / 4;
        uint32_t b0, b1;
        if constexpr (BY_K) {
          const float* q = b + kt * Room::PITCH + n;
          b0 = pack2<T>(q[0], q[Room::PITCH]), b1 = pack2<T>(q[8 * Room::PITCH], q[9 * Room::PITCH]);
        } else {
          const float2 lo = *reinterpret_cast<const float2*>(b + n * Room::PITCH + kt);
          const float2 hi = *reinterpret_cast<const float2*>(b + n * Room::PITCH + kt + 8);
          b0 = pack2<T>(lo.x, lo.y), b1 = pack2<T>(hi.x, hi.y);
        }
        mma<T>(acc[j], fa, b0, b1);
      }
    }
  }
  // the second four warps' half of k joins the first four's through shared memory
  asm volatile("cp.async.wait_group 0;\n" ::);
  __syncthreads();
  float* other = reinterpret_cast<float*>(smem) + threadIdx.x % 128;
  if (warp >= 4)
#pragma unroll
    for (int i = 0; i < R / 2; i++) other[i * 128] = acc[i / 4][i % 4];
  __syncthreads();
  if (warp >= 4) return;
#pragma unroll
  for (int j = 0; j < R / 8; j++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const size_t row = m0 + m + lane / 4 + 8 * h;
      const int both = j * 8 + lane % 4 * 2;
      if (row >= M || both >= width) continue;
      const int which = both / g.r;
      const size_t i = row * g.r + both - which * g.r;
      const float alpha = g.alpha[which];
      float x = alpha * (acc[j][2 * h] + other[(4 * j + 2 * h) * 128]), y = alpha * (acc[j][2 * h + 1] + other[(4 * j + 2 * h + 1) * 128]);
      if (g.beta != 0.0f) {
        const float2 old = unpack2<T>(*reinterpret_cast<uint32_t*>(static_cast<T*>(g.c[which]) + i));
        x += g.beta * old.x, y += g.beta * old.y;
      }
      const uint32_t word = pack2<T>(x, y);
      if (g.c[which]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.c[which]) + i) = word;
      if (g.copy[which]) *reinterpret_cast<uint32_t*>(static_cast<T*>(g.copy[which]) + i) = word;
    }
}

template <class T, int R, bool BY_K> int launch_thin(const ThinBatch& batch, int count) {
  constexpr int SHARED = ThinRoom<R, BY_K>::STAGES * ThinRoom<R, BY_K>::STAGE;
  const cudaError_t e = cudaFuncSetAttribute(thin_kernel<T, R, BY_K>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  thin_kernel<T, R, BY_K><<<dim3(blocks(batch.M, ROWS), count), THREADS, SHARED, stream()>>>(batch);
  return launched("thin products");
}

// ---- parameter gradients ----

constexpr int COLUMNS = 128, TOKENS = 64, TALL_STAGES = 4;

template <class T, int R> __global__ void __launch_bounds__(THREADS, 2) tall_kernel(const __grid_constant__ TallBatch batch) {
  using A = Tile<TOKENS, COLUMNS>;
  constexpr int PITCH = R + 8;  // 16-bit elements of a token's thin row: rows of ldmatrix in different banks
  constexpr int B_BYTES = TOKENS * PITCH * 2, STAGE = A::BYTES + B_BYTES;
  extern __shared__ __align__(128) uint8_t smem[];
  int q = 0;
  while (q + 1 < batch.count && static_cast<int>(blockIdx.x) >= batch.p[q + 1].first_block) q++;
  const Tall& g = batch.p[q];
  const uint32_t base = shared_address(smem);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = g.r * g.count;
  const size_t w0 = static_cast<size_t>(blockIdx.x - g.first_block) * COLUMNS;
  const size_t n0 = blockIdx.y * batch.share, n1 = min(n0 + batch.share, batch.N);
  const T* wide = static_cast<const T*>(g.wide);
  const int steps = static_cast<int>((n1 - n0 + TOKENS - 1) / TOKENS);

  auto fetch = [&](int step) {
    const size_t n = n0 + static_cast<size_t>(step) * TOKENS;
    const uint32_t to = base + step % TALL_STAGES * STAGE;
#pragma unroll
    for (int i = 0; i < TOKENS * A::CHUNKS / THREADS; i++) {
      const int e = threadIdx.x + i * THREADS, row = e / A::CHUNKS, c = e % A::CHUNKS;
      const bool in = n + row < n1 && w0 + c * 8 < g.W;
      copy16(to + A::chunk(row, c) * 16, in ? wide + (n + row) * g.W + w0 + c * 8 : wide, in ? 16 : 0);
    }
    for (int e = threadIdx.x; e < TOKENS * R / 8; e += THREADS) {
      const int row = e / (R / 8), c = e % (R / 8) * 8;
      const bool in = n + row < n1 && c < width;
      const int which = in ? c / g.r : 0;
      const T* thin = static_cast<const T*>(g.thin[which]);
      copy16(to + A::BYTES + (row * PITCH + c) * 2, in ? thin + (n + row) * g.r + c - which * g.r : thin, in ? 16 : 0);
    }
  };

  float acc[R / 8][4] = {};
  for (int s = 0; s < TALL_STAGES - 1; s++) {
    if (s < steps) fetch(s);
    asm volatile("cp.async.commit_group;\n" ::);
  }
  for (int s = 0; s < steps; s++) {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(TALL_STAGES - 2));
    __syncthreads();
    if (s + TALL_STAGES - 1 < steps) fetch(s + TALL_STAGES - 1);
    asm volatile("cp.async.commit_group;\n" ::);
    const uint32_t ta = base + s % TALL_STAGES * STAGE, tb = ta + A::BYTES;
#pragma unroll
    for (int k = 0; k < TOKENS; k += 16) {
      uint32_t fa[4], fb[4];
      a_columns<A>(fa, ta, warp * 16, k);
#pragma unroll
      for (int j = 0; j < R / 16; j++) {
        ldmatrix_trans(fb, tb + ((k + lane / 8 % 2 * 8 + lane % 8) * PITCH + j * 16 + lane / 16 * 8) * 2);
        mma<T>(acc[2 * j], fa, fb[0], fb[1]), mma<T>(acc[2 * j + 1], fa, fb[2], fb[3]);
      }
    }
  }
  const size_t size = g.W * g.r;
#pragma unroll
  for (int j = 0; j < R / 8; j++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const size_t w = w0 + warp * 16 + lane / 4 + e / 2 * 8;
      const int both = j * 8 + lane % 4 * 2 + e % 2;
      if (w >= g.W || both >= width) continue;
      const int which = both / g.r, c = both - which * g.r;
      g.part[(blockIdx.y * g.count + which) * size + (g.by_rank ? c * g.W + w : w * g.r + c)] = acc[j][e];
    }
}

/** out[i] += alpha[i] * the sum of its shares, in order. */
__global__ void __launch_bounds__(128) add_shares_kernel(const __grid_constant__ TallBatch batch) {
  const Tall& g = batch.p[blockIdx.y / MAX_SHARING];
  const int which = blockIdx.y % MAX_SHARING;
  const size_t i = (static_cast<size_t>(blockIdx.x) * 128 + threadIdx.x) * 4, size = g.W * g.r;
  if (which >= g.count || i >= size) return;
  float s[4] = {}, x[4];
#pragma unroll 4
  for (int p = 0; p < g.shares; p++) {
    load<4>(g.part + (p * g.count + which) * size + i, x);
#pragma unroll
    for (int j = 0; j < 4; j++) s[j] += x[j];
  }
  if (g.columns.p) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      load_any<1>(g.columns.p, g.columns.dtype, (i + j) % g.W, *reinterpret_cast<float(*)[1]>(&x[j]));
      s[j] *= x[j] + g.columns.plus;
    }
  }
  load<4>(g.out[which] + i, x);
#pragma unroll
  for (int j = 0; j < 4; j++) x[j] += g.alpha[which] * s[j];
  store<4>(g.out[which] + i, x);
}

template <class T, int R> int launch_tall(TallBatch& batch) {
  constexpr int SHARED = TALL_STAGES * (TOKENS * COLUMNS * 2 + TOKENS * (R + 8) * 2);
  const cudaError_t e = cudaFuncSetAttribute(tall_kernel<T, R>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  if (!place_shares(batch, 2 * multiprocessors())) return US_MEMORY;
  tall_kernel<T, R><<<dim3(batch.blocks, batch.shares), THREADS, SHARED, stream()>>>(batch);
  return add_shares(batch);
}

/** The fewest shares that fill whole rounds of blocks nearly as well as the best number. */
int pick_shares(int column_blocks, size_t N, int slots) {
  const int most = static_cast<int>(blocks(N, 4 * TOKENS));
  int best = 1;
  double best_use = 0;
  for (int s = 1; s <= most && s <= 32; s++) {
    const int all = column_blocks * s, rounds = (all + slots - 1) / slots;
    const double use = static_cast<double>(all) / (rounds * slots);
    if (use > best_use * 1.03) best = s, best_use = use;
  }
  return best;
}

}  // namespace

bool place_shares(TallBatch& batch, int slots) {
  size_t room = 0;
  batch.blocks = 0;
  for (int i = 0; i < batch.count; i++) {
    batch.p[i].first_block = batch.blocks;
    batch.blocks += static_cast<int>(blocks(batch.p[i].W, COLUMNS));
  }
  batch.shares = pick_shares(batch.blocks, batch.N, slots);
  batch.share = (batch.N + batch.shares * TOKENS - 1) / (batch.shares * TOKENS) * TOKENS;
  batch.shares = static_cast<int>((batch.N + batch.share - 1) / batch.share);
  auto floats = [&](int i) { return batch.p[i].W * batch.p[i].r * batch.p[i].count * batch.shares; };
  for (int i = 0; i < batch.count; i++) room += floats(i);
  float* part = static_cast<float*>(scratch(SCRATCH_PARTS, room * sizeof(float)));
  for (int i = 0; part && i < batch.count; i++) batch.p[i].part = part, batch.p[i].shares = batch.shares, part += floats(i);
  return part != nullptr;
}

int add_shares(const TallBatch& batch) {
  size_t largest = 0;
  for (int i = 0; i < batch.count; i++) largest = std::max(largest, batch.p[i].W * batch.p[i].r);
  add_shares_kernel<<<dim3(blocks(largest, 4 * 128), batch.count * MAX_SHARING), 128, 0, stream()>>>(batch);
  return launched("tall products");
}

bool is_thin(const Gemm& g) {
  if (g.a_type == F32 || g.c_type != g.a_type || g.b_type != F32 || g.trans_a || g.bias || g.ldc != g.N) return false;
  return is_rank(g.N) && g.K % 8 == 0 && g.M >= ROWS && aligned16(g.a, g.b, g.c) && thin_room(g.N) <= shared_limit();
}

Thin thin_of(const Gemm& g) {
  Thin t{};
  t.a = g.a, t.b[0] = g.b, t.given[0] = static_cast<const float*>(g.b), t.c[0] = g.c, t.alpha[0] = g.alpha, t.K = g.K;
  t.r = static_cast<int>(g.N), t.count = 1, t.beta = g.beta;
  return t;
}

bool is_tall(const Gemm& g) {
  if (g.a_type == F32 || g.b_type != g.a_type || g.c_type != F32 || !g.trans_a || g.trans_b || g.bias) return false;
  if (g.beta != 1.0f || g.ldc != g.N || g.K < 2 * TOKENS || !aligned16(g.a, g.b, g.c)) return false;
  return (is_rank(g.M) && g.N % 8 == 0) || (is_rank(g.N) && g.M % 8 == 0);
}

Tall tall_of(const Gemm& g) {
  Tall t{};
  t.by_rank = is_rank(g.M);  // c [r,W]: a is the thin one
  t.wide = t.by_rank ? g.b : g.a, t.thin[0] = t.by_rank ? g.a : g.b, t.out[0] = static_cast<float*>(g.c);
  t.alpha[0] = g.alpha, t.W = t.by_rank ? g.N : g.M, t.r = static_cast<int>(t.by_rank ? g.M : g.N), t.count = 1;
  return t;
}

int run_thin(int dtype, bool by_k, size_t M, const Thin* list, int count) {
  ThinBatch batch{};
  batch.M = M;
  for (int i = 0; i < count; i++) batch.p[i] = list[i];
  US_WIDTH_R(width_of(list[0].r, list[0].count), R, {
    if (dtype == BF16) return by_k ? launch_thin<bf16, R, true>(batch, count) : launch_thin<bf16, R, false>(batch, count);
    return by_k ? launch_thin<f16, R, true>(batch, count) : launch_thin<f16, R, false>(batch, count);
  });
  return US_OK;
}

int run_tall(int dtype, size_t N, const Tall* list, int count) {
  for (int width = 16; width <= MAX_RANK; width += 16) {
    TallBatch batch{};
    batch.N = N;
    for (int i = 0; i < count; i++) {
      if (width_of(list[i].r, list[i].count) == width) batch.p[batch.count++] = list[i];
      if (batch.count == 0 || (batch.count < MAX_TALL && i + 1 < count)) continue;
      int rc = US_OK;
      US_WIDTH_R(width, R, rc = dtype == BF16 ? launch_tall<bf16, R>(batch) : launch_tall<f16, R>(batch));
      if (rc) return rc;
      batch.count = 0;
    }
  }
  return US_OK;
}

}  // namespace us
