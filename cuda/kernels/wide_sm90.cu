// One pass over a wide matrix a [M,K] of a LoRA linear on Hopper gives all that is needed of it: the thin products x A^T or
// dy B, the gradient dB = dy^T (x A^T), and a in 8 bits for the product that follows. A cluster of eight blocks has 64 rows at
// a time, each block an eighth of the columns, which come through a ring of TMA stages of 128 columns. One warpgroup
// multiplies: the thin products' parts go to the block that owns the rows, the gradient's columns stay in registers over all
// rows of the cluster. Two more write each stage in e4m3. Or they make the rows first, from x by an RMS norm, and a thread of the
// producer's group sends them out. Idle warps of that group round other
// adapters meanwhile. Bound by reading a once: 50 MB and 17 us for [8192, 3072] on an H100.
#include "wide_norm_sm90.cuh"

namespace us {
namespace {

using namespace sm90;
using namespace wide;
using rms::stages_of;

/** One stage: thin = or += a b, tall += a^T side. */
template <class T, int COUNT, bool TALL>
__device__ __forceinline__ void multiply_stage(float (&thin)[COUNT][8], float (&tall)[2][8], int keep, uint32_t a, uint32_t b, int b_step,
                                               uint32_t side) {
  wgmma_begin();
#pragma unroll
  for (int i = 0; i < COUNT; i++)
#pragma unroll
    for (int k = 0; k < 8; k++)
      Wgmma<T, R, 0>::ss(thin[i], operand(a + k / 4 * PANEL + k % 4 * 32, 1024, 0),
                         operand(b + i * b_step + k / 4 * B_PANEL + k % 4 * 32, 1024, 0), k == 0 ? keep : 1);
  if constexpr (TALL)
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        Wgmma<T, R, 1, 1>::ss(tall[h], operand(a + h * PANEL + k * 2048, 1024, 0), narrow_operand<R>(side + k * 16 * R * 2), 1);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < COUNT; i++) pin(thin[i]);
  if constexpr (TALL) pin(tall[0]), pin(tall[1]);
}

/** `ready`: a stage is there, as it came or with its norm in place. */
template <class T, int COUNT, bool TALL>
__device__ __forceinline__ void multiply(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, uint64_t* ready) {
  const Job& g = q.job[w.job];
  const int t128 = threadIdx.x % 128, b_step = g.stages * 2 * B_PANEL;
  const uint32_t base = shared_address(smem), b = base + q.room.b;
  float thin[COUNT][8], tall[TALL ? MOST : 1][2][8];
#pragma unroll
  for (int i = 0; i < (TALL ? MOST : 1); i++)
#pragma unroll
    for (int j = 0; j < 16; j++) tall[i][j / 8][j % 8] = 0;
#pragma unroll
  for (int i = 0; i < COUNT * 8; i++) thin[i / 8][i % 8] = 0;  // for a block without columns
  Slot s;
  for (int it = 0; it < w.tiles; it++) {
    if constexpr (TALL) wait(&bar.side_full[it & 1], it >> 1 & 1);
    const uint32_t side = base + q.room.side + (it & 1) * SIDE;
    auto stage = [&](int i, float (&columns)[2][8]) {
      wait(&ready[s.at], s.phase);
      multiply_stage<T, COUNT, TALL>(thin, columns, i > 0, base + s.at * STAGE, b + i * 2 * B_PANEL, b_step, side);
      if (t128 == 0) arrive(&bar.empty[s.at]);
      s.advance(1, q.room.ring);
    };
    if constexpr (TALL) {  // registers need constant indices
#pragma unroll
      for (int i = 0; i < MOST; i++)
        if (i < w.stages) stage(i, tall[i]);
    } else {
      for (int i = 0; i < w.stages; i++) stage(i, tall[0]);
    }
    if (TALL && t128 == 0) arrive(&bar.side_empty[it & 1]);
    // In this order two rooms for parts are enough: whoever sends a tile's has read those of the tile before the last.
    if (it > 0) write_sums<T, COUNT>(q, w, smem, bar, it - 1), named_barrier(1, 128);
    send_sums<COUNT>(q, w, smem, bar, it, thin);
  }
  if (w.tiles > 0) write_sums<T, COUNT>(q, w, smem, bar, w.tiles - 1);
  if constexpr (!TALL) return;
  float* part = g.part + static_cast<size_t>(blockIdx.x / CLUSTER - g.first_cluster) * g.K * R;
  const int first = w.c0 + t128 / 32 * 16 + t128 % 32 / 4, column = t128 % 4 * 2;
#pragma unroll
  for (int i = 0; i < (TALL ? MOST : 1); i++)
#pragma unroll
    for (int j = 0; j < 16; j++) {
      const int k = first + i * COLUMNS + j / 8 * 64 + j / 2 % 2 * 8, c = j % 8 / 4 * 8 + column + j % 2;
      if (i < w.stages && k < g.K) part[g.by_rank ? static_cast<size_t>(c) * g.K + k : static_cast<size_t>(k) * R + c] = tall[i][j / 8][j % 8];
    }
}

/** What all but the producer's group do first. */
template <class T, int COUNT, bool NORM, int THREADS> __device__ __forceinline__ void prepare(const Params& q, const Work& w, uint8_t* smem) {
  load_b<T, COUNT>(q, w, smem, threadIdx.x - 128, THREADS);
  if constexpr (NORM) load_gain(q, w, smem, threadIdx.x - 128, THREADS);
  fence_async();
  __syncwarp();
  cluster_sync();  // all adapters are in, and the other blocks' barriers are there
}

constexpr int threads_of(bool rows) { return rows ? 512 : 256; }

template <class T, int COUNT, bool TALL, bool ROUND, bool NORM>
__global__ void US_CLUSTER(CLUSTER) __launch_bounds__(threads_of(ROUND || NORM), 1) wide_kernel(const __grid_constant__ Params q) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int OTHERS = threads_of(ROUND || NORM) - 128, IDLE = NORM ? 64 : 32;
  extern __shared__ uint8_t raw[];
  uint8_t* smem = raw + (1024 - shared_address(raw) % 1024) % 1024;
  const Barriers bar(smem + q.room.barriers, q.room.ring);
  const Work w = work_of(q);
  if (threadIdx.x == 0) {
    for (int i = 0; i < q.room.ring; i++) {
      barrier_init(&bar.full[i], 1), barrier_init(&bar.normed[i], 128);
      barrier_init(&bar.empty[i], 1 + (NORM ? 1 : ROUND ? 128 : 0));  // multiplied, sent or rounded
    }
    for (int i = 0; i < 2; i++) barrier_init(&bar.side_full[i], 1), barrier_init(&bar.side_empty[i], 1), barrier_init(&bar.sums[i], 1);
    for (int i = 0; i < 4; i++) barrier_init(&bar.squares[i], 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    cluster_arrive();
    if constexpr (ROUND && TALL) registers_down<40>();
    if (threadIdx.x == 0) produce<TALL>(q, w, smem, bar);
    if (NORM && threadIdx.x == 32) send_rows(q, w, smem, bar);
    for (int i = 0; threadIdx.x >= IDLE && i < q.casts; i++)
      round_adapter<T>(q.cast[i], blockIdx.x * (128 - IDLE) + threadIdx.x - IDLE, gridDim.x * (128 - IDLE));
    __syncwarp();
    cluster_wait();
  } else if (threadIdx.x < 256) {
    if constexpr (ROUND && TALL) registers_up<200>();
    prepare<T, COUNT, NORM, OTHERS>(q, w, smem);
    multiply<T, COUNT, TALL>(q, w, smem, bar, NORM ? bar.normed : bar.full);
    __syncwarp();
  } else if constexpr (ROUND || NORM) {
    prepare<T, COUNT, NORM, OTHERS>(q, w, smem);
    if constexpr (NORM) norm_rows<T, ROUND>(q, w, smem, bar, threadIdx.x / 128 - 2);
    else round_rows<T>(q, w, smem, bar, threadIdx.x / 128 - 2);
    __syncwarp();
  }
  cluster_sync();  // no block leaves while another may still write into it
#endif
}

/**
 * Clusters that a chip holds at once: its groups of multiprocessors leave some over, 12 of an H100's 132
 * (cudaOccupancyMaxActiveClusters: 15). One more would run after all others: 22.0 ms a step for 14.6. Not asked for at run
 * time, because the order of a gradient's sums follows from it and must not differ between two chips of a kind.
 */
int clusters_at_once() { return multiprocessors() > 20 ? (multiprocessors() - 12) / CLUSTER : 1; }

/** Gives each job clusters, those with the most work left for one cluster first. */
void share_clusters(Params& q, int all) {
  const int tiles = static_cast<int>(blocks(q.M, ROWS));
  for (int i = 0; i < q.jobs; i++) q.job[i].clusters = 1;
  for (int left = all - q.jobs; left > 0; left--) {
    int longest = 0, most = 0;
    for (int i = 0; i < q.jobs; i++) {
      const int work = (tiles + q.job[i].clusters - 1) / q.job[i].clusters * (2 * q.job[i].stages + 1);
      if (work > most) most = work, longest = i;
    }
    if (q.job[longest].clusters >= tiles) break;
    q.job[longest].clusters++;
  }
  for (int i = 1; i < q.jobs; i++) q.job[i].first_cluster = q.job[i - 1].first_cluster + q.job[i - 1].clusters;
}

template <class T, int COUNT, bool TALL, bool ROUND, bool NORM = false> int launch(const Params& q) {
  const auto kernel = wide_kernel<T, COUNT, TALL, ROUND, NORM>;
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, q.room.bytes);
  if (e != cudaSuccess) return cuda_error("matmul", e);
  const Job& last = q.job[q.jobs - 1];
  kernel<<<(last.first_cluster + last.clusters) * CLUSTER, threads_of(ROUND || NORM), q.room.bytes, stream()>>>(q);
  return launched(NORM ? "norm and thin products" : TALL ? "thin products and dB" : "thin products");
}

template <class T> int pick_norm(const Params& q, int count, bool round) {
  if (count == 3) return round ? launch<T, 3, false, true, true>(q) : launch<T, 3, false, false, true>(q);
  if (count == 2) return round ? launch<T, 2, false, true, true>(q) : launch<T, 2, false, false, true>(q);
  return round ? launch<T, 1, false, true, true>(q) : launch<T, 1, false, false, true>(q);
}
template <class T> int pick(const Params& q, int count, bool tall, bool round, bool norm) {
  if (norm) return pick_norm<T>(q, count, round);
  if (count == 3) return round ? launch<T, 3, false, true>(q) : launch<T, 3, false, false>(q);
  if (count == 2) return round ? launch<T, 2, false, true>(q) : launch<T, 2, false, false>(q);
  if (tall) return round ? launch<T, 1, true, true>(q) : launch<T, 1, true, false>(q);
  return round ? launch<T, 1, false, true>(q) : launch<T, 1, false, false>(q);
}

/** What a job's norm reads and writes; false when the driver refuses a tensor map. */
bool place_norm(Job& g, Maps& map, const Normed& n, size_t M, size_t K) {
  g.w = n.w, g.w_type = n.w_type, g.norm_stat = n.stat, g.eps = n.eps, g.plus = n.plus_one ? 1.0f : 0.0f;
  return map_2d(&map.y, n.y, M, K, ROWS);
}

}  // namespace

bool wide_fits_sm90(const Thin& t, int count) {
  if (!has_sm90() || t.r != R || t.beta != 0.0f || t.K < COLUMNS || count > MAX_SHARING) return false;
  const int stages = stages_of(t.K);
  return stages <= MOST && room_of(count, stages, count == 1, false).ring >= stages + 2;
}

bool wide_norm_fits_sm90(size_t K, int count) {
  if (!has_sm90() || K < COLUMNS || K % 8 || count > MAX_SHARING) return false;
  const int stages = stages_of(K);
  return stages <= MOST && room_of(count, stages, false, true).ring >= stages + 2;
}

int run_wide_sm90(int dtype, bool by_k, size_t M, const Wide* list, int count, const Cast* casts, int cast_count) {
  Params q{};
  TallBatch batch{};
  const bool tall = list[0].tall.wide != nullptr, round = list[0].to8 != nullptr, norm = list[0].norm.x != nullptr;
  q.jobs = count, q.casts = cast_count, q.M = static_cast<int>(M), q.by_k = by_k;
  for (int i = 0; i < cast_count; i++) q.cast[i] = casts[i];
  int most = 0;
  for (int i = 0; i < count; i++) {
    const Thin& t = list[i].thin;
    Job& g = q.job[i];
    for (int j = 0; j < t.count; j++) {
      g.b[j] = static_cast<const float*>(t.b[j]), g.alpha[j] = t.alpha[j];
      g.c[j] = t.c[j], g.copy[j] = t.copy[j], g.scaled[j] = t.scaled[j];
    }
    g.stat = t.stat, g.K = static_cast<int>(t.K), g.stages = stages_of(t.K), g.to8 = list[i].to8, g.scale8 = list[i].scale8, g.by_rank = list[i].tall.by_rank;
    most = g.stages > most ? g.stages : most;
    bool ok = map_2d(&q.map[i].a, norm ? list[i].norm.x : t.a, M, t.K, ROWS);
    if (norm) ok = ok && place_norm(g, q.map[i], list[i].norm, M, t.K);
    if (tall) ok = ok && map_box(&q.map[i].side, list[i].tall.thin[0], M, R, ROWS, R);
    if (!ok) return fail(US_DEVICE, "Cannot run matmul: the driver refused a tensor map");
  }
  q.room = room_of(list[0].count, most, tall, norm);
  share_clusters(q, clusters_at_once());
  if (tall) {
    size_t room = 0;
    for (int i = 0; i < count; i++) room += static_cast<size_t>(q.job[i].clusters) * q.job[i].K * R;
    float* part = static_cast<float*>(scratch(SCRATCH_PARTS, room * sizeof(float)));
    if (!part) return US_MEMORY;
    for (int i = 0; i < count; i++) {
      Tall& t = batch.p[i] = list[i].tall;
      t.part = q.job[i].part = part, t.shares = q.job[i].clusters, part += static_cast<size_t>(t.shares) * q.job[i].K * R;
    }
    batch.count = count;
  }
  const int rc = dtype == BF16 ? pick<bf16>(q, list[0].count, tall, round, norm) : pick<f16>(q, list[0].count, tall, round, norm);
  return rc || !tall ? rc : add_shares(batch);
}

}  // namespace us
