// What a block of a gated activation's pass (glu_sm90.cu) works on: shared memory, barriers, its share of rows and columns, its
// copies in, its adapters, and its results' way out.
#pragma once
#include "glu_sm90.h"

#include "cast.cuh"
#include "e4m3.cuh"
#include "sm90.cuh"
#include "tensor_map.h"

namespace us {
namespace glu {

using namespace sm90;

constexpr int ROWS = 64, COLUMNS = 64, GROUPS = 4, MINE = 2, PANELS = GROUPS * MINE, R = 16;
constexpr int PANEL = ROWS * 128, B_PANEL = R * 128, SIDE = ROWS * R * 2, THREADS = 128 * (GROUPS + 1);

struct Params {
  CUtensorMap gate, up, dh, out[3], side[3];  // out: of a stage's panels, d_gate, d_up, h or forward h
  const float* b[2];
  float *thin, *tall[3];  // parts: [column blocks][M][thin products * R]; [shares][F * R]
  Cast cast[MAX_CASTS];
  uint8_t* to8[2];
  float* scale8[2];
  int casts, M, F, share;  // share: tokens of a block, a multiple of ROWS
  bool stored[3], by_rank[3];
};

/** LARGEST: [2][GROUPS][rounded matrices][ROWS], two rooms in turn. */
template <bool BACKWARD> struct Room {
  static constexpr int THIN = BACKWARD ? 2 : 1, TALL = BACKWARD ? 3 : 0, WIDE = BACKWARD ? 3 : 2;
  static constexpr int STAGE = WIDE * PANEL, STAGES = BACKWARD ? 6 : 11, SUMS = ROWS * THIN * R * 4;
  static constexpr int B = STAGES * STAGE, SIDES = B + THIN * PANELS * B_PANEL, SUM = SIDES + 2 * TALL * SIDE;
  static constexpr int LARGEST = SUM + GROUPS * SUMS, BARRIERS = LARGEST + 2 * GROUPS * THIN * ROWS * 4, BYTES = BARRIERS + ((GROUPS + 2) * STAGES + 6) * 8 + 1024;
};
/**
 * full: of each warpgroup's stages, in its order. A stage's own would not do: a warpgroup that comes early to a stage whose last
 * use was another's, not even loaded, would take that phase for its own, since a barrier tells two phases apart and not three.
 */
template <bool BACKWARD> struct Barriers {
  uint64_t *full, *ready, *empty, *side_full, *side_empty, *sums_full, *sums_empty;
  __device__ __forceinline__ explicit Barriers(uint8_t* at) {
    constexpr int STAGES = Room<BACKWARD>::STAGES;
    full = reinterpret_cast<uint64_t*>(at), ready = full + GROUPS * STAGES, empty = ready + STAGES, side_full = empty + STAGES;
    side_empty = side_full + 2, sums_full = side_empty + 2, sums_empty = sums_full + 1;
  }
};

/** A block's share of the work. */
struct Work {
  int row, tiles, column, panels;
  /** Number of `panel` of tile `it` among those of its warpgroup. */
  __device__ __forceinline__ int own(int it, int panel) const {
    return it * ((panels - panel % GROUPS + GROUPS - 1) / GROUPS) + panel / GROUPS;
  }
};
__device__ __forceinline__ Work work_of(const Params& p) {
  const int row = blockIdx.y * p.share, column = blockIdx.x * PANELS * COLUMNS;
  return {row, (min(p.share, p.M - row) + ROWS - 1) / ROWS, column, min(PANELS, (p.F - column + COLUMNS - 1) / COLUMNS)};
}

template <bool BACKWARD> __device__ __forceinline__ void produce(const Params& p, const Work& w, uint8_t* smem, const Barriers<BACKWARD>& bar) {
  using S = Room<BACKWARD>;
  int stage = 0, phase = 0;
  for (int it = 0; it < w.tiles; it++) {
    const int row = w.row + it * ROWS;
    if constexpr (BACKWARD) {
      wait(&bar.side_empty[it & 1], (it >> 1 & 1) ^ 1);
      expect_bytes(&bar.side_full[it & 1], S::TALL * SIDE);
      for (int i = 0; i < S::TALL; i++) load_2d(smem + S::SIDES + ((it & 1) * S::TALL + i) * SIDE, &p.side[i], &bar.side_full[it & 1], 0, row);
    }
    for (int i = 0; i < w.panels; i++) {
      wait(&bar.empty[stage], phase ^ 1);
      uint64_t* full = bar.full + i % GROUPS * S::STAGES + w.own(it, i) % S::STAGES;
      expect_bytes(full, S::STAGE);
      uint8_t* to = smem + stage * S::STAGE;
      const int column = w.column + i * COLUMNS;
      load_2d(to, &p.gate, full, column, row), load_2d(to + PANEL, &p.up, full, column, row);
      if constexpr (BACKWARD) load_2d(to + 2 * PANEL, &p.dh, full, column, row);
      if (++stage == S::STAGES) stage = 0, phase ^= 1;
    }
  }
}

/** The adapters of this block's columns, rounded, as operands of wgmma: [product][panel] of R rows of 64 columns, swizzled. */
template <class T, bool BACKWARD> __device__ __forceinline__ void load_b(const Params& p, const Work& w, uint8_t* smem) {
  using S = Room<BACKWARD>;
  constexpr int CHUNKS = PANELS * 8;
  for (int e = threadIdx.x - 128; e < S::THIN * R * CHUNKS; e += THREADS - 128) {
    const int which = e / (R * CHUNKS), rest = e % (R * CHUNKS);
    const int r = BACKWARD ? rest % R : rest / CHUNKS, chunk = BACKWARD ? rest / R : rest % CHUNKS, k = w.column + chunk * 8;
    const float* b = p.b[which];
    float v[8] = {};
    if (k < p.F) {  // F is a multiple of 8
      if constexpr (BACKWARD) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = b[static_cast<size_t>(k + i) * R + r];
      } else {
        load<8>(b + static_cast<size_t>(r) * p.F + k, v);
      }
    }
    uint8_t* panel = smem + S::B + (which * PANELS + chunk / 8) * B_PANEL;
    store<8>(reinterpret_cast<T*>(panel + r * 128 + ((chunk % 8) ^ (r & 7)) * 16), v);
  }
}

/** A warpgroup's part of LARGEST: of its rounded matrices, each row's largest value over one panel. */
template <bool BACKWARD> __device__ __forceinline__ float* largest_of(uint8_t* smem, const Work& w, int it, int panel, int group) {
  constexpr int N = Room<BACKWARD>::THIN;
  return reinterpret_cast<float*>(smem + Room<BACKWARD>::LARGEST) + ((w.own(it, panel) & 1) * GROUPS + group) * N * ROWS;
}

/**
 * What is rounded of a panel, d_gate and d_up or forward h, in e4m3. Two warpgroups have the 128 columns of a scale, and both need
 * the larger of their two values of a row. Two rooms are enough: whoever writes one has met the other since that read it.
 */
template <class T, bool BACKWARD>
__device__ __forceinline__ void round_panel(const Params& p, const Work& w, uint8_t* smem, const uint8_t* stage, int it, int panel) {
  const int t128 = threadIdx.x % 128, first = t128 / 8, chunk = t128 % 8, group = panel % GROUPS;
  const float *own = largest_of<BACKWARD>(smem, w, it, panel, group) + first, *other = largest_of<BACKWARD>(smem, w, it, panel, group ^ 1) + first;
  const int column = w.column + panel * COLUMNS, row = w.row + it * ROWS + first;
  const uint8_t* at = stage + first * 128 + (chunk ^ (first & 7)) * 16;
  named_barrier(1 + group / 2, 256);
#pragma unroll
  for (int i = 0; i < Room<BACKWARD>::THIN; i++) {
    uint8_t* to = p.to8[i] + static_cast<size_t>(row) * p.F + column + chunk * 8;
    float* scale = p.scale8[i] + column / 128 * scale_rows(p.M) + row;
#pragma unroll 2
    for (int m = 0; m < ROWS; m += 16) {
      const float most = fmaxf(own[i * ROWS + m], other[i * ROWS + m]);
      if (row + m >= p.M) continue;
      float v[8];
      load<8>(reinterpret_cast<const T*>(at + i * PANEL + m * 128), v);
      *reinterpret_cast<uint2*>(to + static_cast<size_t>(m) * p.F) = eight_e4m3(v, inverse_of(most));
      if (chunk == 0 && group % 2 == 0) scale[m] = scale_of(most);
    }
  }
}

/** The stages' way out, by one thread; a stage is given back while the next one leaves. */
template <bool BACKWARD> __device__ __forceinline__ void send(const Params& p, const Work& w, uint8_t* smem, const Barriers<BACKWARD>& bar) {
  using S = Room<BACKWARD>;
  int stage = 0, phase = 0, before = -1;
  for (int it = 0; it < w.tiles; it++) {
    for (int i = 0; i < w.panels; i++) {
      const int row = w.row + it * ROWS, column = w.column + i * COLUMNS;
      const uint8_t* from = smem + stage * S::STAGE;
      wait(&bar.ready[stage], phase);
      for (int o = 0; o < (BACKWARD ? 3 : 1); o++)
        if (p.stored[o]) store_2d(&p.out[o], from + o * PANEL, column, row);
      store_commit();
      store_wait_read<1>();
      if (before >= 0) arrive(&bar.empty[before]);
      before = stage;
      if (++stage == S::STAGES) stage = 0, phase ^= 1;
    }
  }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

}  // namespace glu
}  // namespace us
