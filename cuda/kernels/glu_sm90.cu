// A gated feed-forward's activation and all that LoRA reads of its results, in one pass on Hopper. Forward: h = act(gate) * up
// and h A^T of the linear that follows. Backward: d_gate, d_up and h from gate, up and dh; d_gate B and d_up B; dB of gate and up;
// dA of the linear that read h. One by one these would read the three wide results again and again.
//
// A block has up to 512 columns and a share of the tokens, 64 at a time. Panels of 64 x 64 come through a ring of TMA stages;
// four warpgroups have two panels each: they compute in place and multiply from there, while a thread of the producer's group
// hands the stages to the copy engine for their way out. Gradients stay in registers over all tokens of the block. Thin sums
// of the warpgroups are added by idle warps and go to memory as one part a block; a second kernel adds the parts, in order.
// Where products at 8 bits read the results they are written in e4m3 too, or only so.
// Bound by memory: 3 reads and 3 writes of [M,F] (2 writes when h is not wanted, of 8 bits perhaps; forward 2 and 1).
#include "glu_sm90.cuh"

#include "activate.cuh"

namespace us {
namespace {

using namespace glu;

/** The largest of eight threads' values of a row, as T rounds it: rounding keeps order. */
template <class T> __device__ __forceinline__ float largest(const float (&v)[8]) {
  float x = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) x = fmaxf(x, fabsf(v[j]));
#pragma unroll
  for (int o = 4; o; o >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, o));
  return to_f(from_f<T>(x));
}

/**
 * A stage in place: gate, up, dh become d_gate, d_up, h; forward gate becomes h. Eight threads a row. With ROUND the largest of each
 * row of d_gate and d_up, or of h, is noted in `most`.
 */
template <class T, bool BACKWARD, bool ROUND, int ACT> __device__ __forceinline__ void compute(uint8_t* stage, float* most) {
  const int t128 = threadIdx.x % 128, row = t128 / 8;
  uint8_t* at = stage + row * 128 + ((t128 % 8) ^ (row & 7)) * 16;
#pragma unroll 2
  for (int m = 0; m < ROWS / 16; m++) {
    T *pg = reinterpret_cast<T*>(at + m * 2048), *pu = reinterpret_cast<T*>(at + m * 2048 + PANEL), *pd = reinterpret_cast<T*>(at + m * 2048 + 2 * PANEL);
    float g[8], u[8], d[8];
    load<8>(pg, g), load<8>(pu, u);
    if constexpr (BACKWARD) load<8>(pd, d);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float y, slope;
      activate<ACT, false>(g[j], y, slope);
      if constexpr (BACKWARD) {
        g[j] = d[j] * slope * u[j];
        const float h = y * u[j];
        u[j] = d[j] * y, d[j] = h;
      } else {
        g[j] = y * u[j];
      }
    }
    store<8>(pg, g);
    if constexpr (BACKWARD) store<8>(pu, u), store<8>(pd, d);
    if constexpr (ROUND) {
      const float x = largest<T>(g), y = BACKWARD ? largest<T>(u) : 0;
      if (t128 % 8 == 0) most[row + 16 * m] = x;
      if (BACKWARD && t128 % 8 == 0) most[ROWS + row + 16 * m] = y;
    }
  }
}

/** thin = or += panel b; tall += panel^T side. */
template <class T, bool BACKWARD>
__device__ __forceinline__ void multiply(float (&thin)[Room<BACKWARD>::THIN][8], float (&tall)[3][8], uint32_t stage, uint32_t b, uint32_t side, int keep) {
  using S = Room<BACKWARD>;
  wgmma_begin();
#pragma unroll
  for (int i = 0; i < S::THIN; i++)
#pragma unroll
    for (int k = 0; k < 4; k++)
      Wgmma<T, R, 0>::ss(thin[i], operand(stage + i * PANEL + k * 32, 1024, 0), operand(b + i * PANELS * B_PANEL + k * 32, 1024, 0), k == 0 ? keep : 1);
#pragma unroll
  for (int i = 0; i < S::TALL; i++)
#pragma unroll
    for (int k = 0; k < 4; k++)
      Wgmma<T, R, 1, 1>::ss(tall[i], operand(stage + i * PANEL + k * 2048, 1024, 0), narrow_operand<R>(side + i * SIDE + k * 16 * R * 2), 1);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < S::THIN; i++) pin(thin[i]);
#pragma unroll
  for (int i = 0; i < S::TALL; i++) pin(tall[i]);
}

template <class T, bool BACKWARD, bool ROUND, int ACT>
__device__ __forceinline__ void consume(const Params& p, const Work& w, uint8_t* smem, const Barriers<BACKWARD>& bar) {
  using S = Room<BACKWARD>;
  const int group = threadIdx.x / 128 - 1, t128 = threadIdx.x % 128, lane = t128 % 32;
  const uint32_t base = shared_address(smem);
  float thin[S::THIN][8], tall[MINE][3][8];
#pragma unroll
  for (int i = 0; i < MINE * 24; i++) tall[i / 24][i / 8 % 3][i % 8] = 0;
  int own = 0, phase = 0;
  float* sums = reinterpret_cast<float*>(smem + S::SUM + group * S::SUMS) + (t128 / 32 * 16 + lane / 4) * S::THIN * R + lane % 4 * 2;
  for (int it = 0; it < w.tiles; it++) {
#pragma unroll
    for (int i = 0; i < S::THIN * 8; i++) thin[i / 8][i % 8] = 0;  // for a warpgroup without columns
    if (BACKWARD) wait(&bar.side_full[it & 1], it >> 1 & 1);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      const int panel = group + i * GROUPS, n = it * w.panels + panel, at = n % S::STAGES;
      if (panel >= w.panels) continue;
      uint8_t* stage = smem + at * S::STAGE;
      wait(&bar.full[group * S::STAGES + own], phase);
      if (++own == S::STAGES) own = 0, phase ^= 1;
      compute<T, BACKWARD, ROUND, ACT>(stage, largest_of<BACKWARD>(smem, w, it, panel, group));
      fence_async();
      arrive(&bar.ready[at]);  // here and below every thread, where one a warp would do: racecheck knows no other way, and it costs nothing
      wait(&bar.ready[at], n / S::STAGES & 1);
      multiply<T, BACKWARD>(thin, tall[i], base + at * S::STAGE, base + S::B + panel * B_PANEL, base + S::SIDES + (it & 1) * S::TALL * SIDE, i > 0);
      if constexpr (ROUND) round_panel<T, BACKWARD>(p, w, smem, stage, it, panel);
      arrive(&bar.empty[at]);
    }
    if (BACKWARD) arrive(&bar.side_empty[it & 1]);
    wait(bar.sums_empty, it & 1 ^ 1);
#pragma unroll
    for (int i = 0; i < S::THIN; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        *reinterpret_cast<float2*>(sums + (j % 2 * 8) * S::THIN * R + i * R + j / 2 * 8) = make_float2(thin[i][2 * j], thin[i][2 * j + 1]);
    arrive(bar.sums_full);
  }
  if constexpr (BACKWARD) {
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int which = 0; which < 3; which++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int k = w.column + (group + i * GROUPS) * COLUMNS + t128 / 32 * 16 + lane / 4 + j / 2 % 2 * 8, c = j / 4 * 8 + lane % 4 * 2 + j % 2;
          float* part = p.tall[which] + static_cast<size_t>(blockIdx.y) * p.F * R;
          if (k < p.F) part[p.by_rank[which] ? static_cast<size_t>(c) * p.F + k : static_cast<size_t>(k) * R + c] = tall[i][which][j];
        }
  }
}

/** Adds the warpgroups' thin sums of each 64 tokens, by 64 threads. */
template <bool BACKWARD> __device__ __forceinline__ void add_sums(const Params& p, const Work& w, uint8_t* smem, const Barriers<BACKWARD>& bar) {
  using S = Room<BACKWARD>;
  constexpr int WIDTH = S::THIN * R, FOURS = ROWS * WIDTH / 4;
  const float4* from = reinterpret_cast<const float4*>(smem + S::SUM);
  for (int it = 0; it < w.tiles; it++) {
    const int row = w.row + it * ROWS;
    float4* to = reinterpret_cast<float4*>(p.thin + (static_cast<size_t>(blockIdx.x) * p.M + row) * WIDTH);
    wait(bar.sums_full, it & 1);
    for (int e = threadIdx.x - 64; e < FOURS; e += 64) {
      float4 x = from[e];
#pragma unroll
      for (int g = 1; g < GROUPS; g++) {
        const float4 y = from[g * FOURS + e];
        x.x += y.x, x.y += y.y, x.z += y.z, x.w += y.w;
      }
      if (row + e / (WIDTH / 4) < p.M) to[e] = x;
    }
    arrive(bar.sums_empty);
  }
}

template <class T, bool BACKWARD, bool ROUND, int ACT> __global__ void __launch_bounds__(THREADS, 1) glu_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = Room<BACKWARD>;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  const Barriers<BACKWARD> bar(smem + S::BARRIERS);
  const Work w = work_of(p);
  if (threadIdx.x == 0) {
    for (int i = 0; i < GROUPS * S::STAGES; i++) barrier_init(&bar.full[i], 1);
    for (int i = 0; i < S::STAGES; i++) barrier_init(&bar.ready[i], 128), barrier_init(&bar.empty[i], 129);
    for (int i = 0; i < 2; i++) barrier_init(&bar.side_full[i], 1), barrier_init(&bar.side_empty[i], 128 * GROUPS);
    barrier_init(bar.sums_full, 128 * GROUPS), barrier_init(bar.sums_empty, 64);
    barrier_init_fence();
  }
  if (threadIdx.x >= 128) load_b<T, BACKWARD>(p, w, smem), fence_async();
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_down<32>();
    if (threadIdx.x == 0) produce<BACKWARD>(p, w, smem, bar);
    if (threadIdx.x == 32) send<BACKWARD>(p, w, smem, bar);
    if (threadIdx.x >= 64) {
      const int block = blockIdx.y * gridDim.x + blockIdx.x, all = gridDim.x * gridDim.y;
      for (int i = 0; i < p.casts; i++) round_adapter<T>(p.cast[i], block * 64 + threadIdx.x - 64, all * 64);
      add_sums<BACKWARD>(p, w, smem, bar);
    }
  } else {
    registers_up<112>();
    consume<T, BACKWARD, ROUND, ACT>(p, w, smem, bar);
  }
#endif
}

// ---- the blocks' parts of thin products ----

struct Sums {
  const float* part;
  void *c[2], *copy[2], *scaled[2];
  const float* stat;
  float alpha[2];
  size_t M;
  int parts;
};

/** Four values a thread. */
template <class T, int THIN> __global__ void __launch_bounds__(128) sum_kernel(Sums s) {
  constexpr int WIDTH = THIN * R;
  const size_t i = (static_cast<size_t>(blockIdx.x) * 128 + threadIdx.x) * 4, size = s.M * WIDTH;
  if (i >= size) return;
  float4 x = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int b = 0; b < s.parts; b++) {
    const float4 y = *reinterpret_cast<const float4*>(s.part + b * size + i);
    x.x += y.x, x.y += y.y, x.z += y.z, x.w += y.w;
  }
  const bool second = THIN == 2 && i % WIDTH >= R;  // no indices: parameters stay where they are
  const float f = second ? s.alpha[1] : s.alpha[0];
  T *c = static_cast<T*>(second ? s.c[1] : s.c[0]), *copy = static_cast<T*>(second ? s.copy[1] : s.copy[0]);
  const uint2 word = make_uint2(pack2<T>(f * x.x, f * x.y), pack2<T>(f * x.z, f * x.w));
  const size_t to = i / WIDTH * R + i % R;
  if (c) *reinterpret_cast<uint2*>(c + to) = word;
  if (copy) *reinterpret_cast<uint2*>(copy + to) = word;
  T* scaled = static_cast<T*>(second ? s.scaled[1] : s.scaled[0]);
  if (!scaled) return;
  const float g = f * s.stat[2 * (i / WIDTH) + 1];
  *reinterpret_cast<uint2*>(scaled + to) = make_uint2(pack2<T>(g * x.x, g * x.y), pack2<T>(g * x.z, g * x.w));
}

// ---- launches ----

/** Blocks side by side, and shares of the tokens that fill whole rounds of the chip nearly as well as the best number. */
dim3 grid_of(size_t M, size_t F) {
  const int across = static_cast<int>(blocks(F, PANELS * COLUMNS)), slots = multiprocessors(), most = static_cast<int>(blocks(M, ROWS));
  int best = 1;
  double best_use = 0;
  for (int s = 1; s <= most && across * s <= 4 * slots; s++) {
    const int tiles = (most + s - 1) / s, rounds = (across * s + slots - 1) / slots;
    const double use = static_cast<double>(across) * most / (static_cast<double>(rounds) * slots * tiles);
    if (use > best_use * 1.02) best = s, best_use = use;
  }
  return dim3(across, best);
}

template <class T, bool BACKWARD, bool ROUND, int ACT> int launch(Params& p, const GluPass& g) {
  using S = Room<BACKWARD>;
  dim3 grid = grid_of(g.M, g.F);
  p.share = static_cast<int>(blocks(blocks(g.M, ROWS), grid.y)) * ROWS, grid.y = blocks(g.M, p.share);
  const size_t thin = grid.x * g.M * S::THIN * R, tall = BACKWARD ? grid.y * g.F * R : 0;
  float* room = static_cast<float*>(scratch(SCRATCH_PARTS, (thin + 3 * tall) * sizeof(float)));
  if (!room) return US_MEMORY;
  p.thin = room;
  for (int i = 0; i < 3; i++) p.tall[i] = room + thin + i * tall;
  const auto kernel = glu_kernel<T, BACKWARD, ROUND, ACT>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::BYTES);
  if (e != cudaSuccess) return cuda_error("glu", e);
  kernel<<<grid, THREADS, S::BYTES, stream()>>>(p);
  if (const int rc = launched(BACKWARD ? "glu_bwd and its thin products" : "glu and its thin product")) return rc;
  Sums s{};
  s.part = room, s.M = g.M, s.parts = static_cast<int>(grid.x), s.stat = g.thin[0].stat ? g.thin[0].stat : g.thin[1].stat;
  for (int i = 0; i < S::THIN; i++) s.c[i] = g.thin[i].c[0], s.copy[i] = g.thin[i].copy[0], s.scaled[i] = g.thin[i].scaled[0], s.alpha[i] = g.thin[i].alpha[0];
  sum_kernel<T, S::THIN><<<blocks(g.M * S::THIN * R, 4 * 128), 128, 0, stream()>>>(s);
  if (const int rc = launched("thin products")) return rc;
  if (!BACKWARD) return US_OK;
  TallBatch batch{};
  batch.count = 3;
  for (int i = 0; i < 3; i++) batch.p[i] = g.tall[i], batch.p[i].part = p.tall[i], batch.p[i].shares = static_cast<int>(grid.y);
  return add_shares(batch);
}

template <class T, bool ROUND> int pick(Params& p, const GluPass& g) {
  if (g.act == SILU) return g.dh ? launch<T, true, ROUND, SILU>(p, g) : launch<T, false, ROUND, SILU>(p, g);
  return g.dh ? launch<T, true, ROUND, GELU_TANH>(p, g) : launch<T, false, ROUND, GELU_TANH>(p, g);
}
template <class T> int pick_type(Params& p, const GluPass& g) { return g.to8[0] ? pick<T, true>(p, g) : pick<T, false>(p, g); }

}  // namespace

bool glu_fits_sm90(const GluPass& g) {
  if (!has_sm90() || g.act == GELU || g.F % 8 || g.F < 2 * COLUMNS || g.M < ROWS || (g.to8[0] && g.F % 128)) return false;
  for (int i = 0; i < (g.dh ? 2 : 1); i++)
    if (g.thin[i].count != 1 || g.thin[i].r != R || g.thin[i].beta != 0.0f || g.thin[i].K != g.F) return false;
  for (int i = 0; g.dh && i < 3; i++)
    if (g.tall[i].count != 1 || g.tall[i].r != R || g.tall[i].W != g.F) return false;
  return aligned16(g.gate, g.up, g.dh, g.d_gate, g.d_up, g.h);
}

int run_glu_sm90(int dtype, const GluPass& g, const Cast* casts, int cast_count) {
  Params p{};
  p.M = static_cast<int>(g.M), p.F = static_cast<int>(g.F), p.casts = cast_count;
  for (int i = 0; i < cast_count; i++) p.cast[i] = casts[i];
  bool ok = map_2d(&p.gate, g.gate, g.M, g.F, ROWS) && map_2d(&p.up, g.up, g.M, g.F, ROWS);
  if (g.dh) ok = ok && map_2d(&p.dh, g.dh, g.M, g.F, ROWS);
  void* const out[] = {g.dh ? g.d_gate : g.h, g.dh ? g.d_up : nullptr, g.dh ? g.h : nullptr};
  for (int i = 0; i < 3; i++) {
    p.stored[i] = out[i] != nullptr;
    if (out[i]) ok = ok && map_2d(&p.out[i], out[i], g.M, g.F, ROWS);
  }
  for (int i = 0; i < 2; i++) p.to8[i] = g.to8[i], p.scale8[i] = g.scale8[i];
  for (int i = 0; i < (g.dh ? 2 : 1); i++) p.b[i] = g.thin[i].given[0];
  for (int i = 0; g.dh && i < 3; i++) ok = ok && map_box(&p.side[i], g.tall[i].thin[0], g.M, R, ROWS, R), p.by_rank[i] = g.tall[i].by_rank;
  if (!ok) return fail(US_DEVICE, "Cannot run glu: the driver refused a tensor map");
  return dtype == BF16 ? pick_type<bf16>(p, g) : pick_type<f16>(p, g);
}

}  // namespace us
