// What two warpgroups do with the rows of a pass over a wide matrix (wide_sm90.cu): each stage of 128 columns in e4m3, a row of it
// by its own largest value. Eight threads a row, each with eight columns of both panels.
#pragma once
#include "e4m3.cuh"
#include "wide_sm90.cuh"

namespace us {
namespace wide {

/** A thread's part of a stage: rows first + 16 * m, eight columns from chunk * 8 in both panels. */
struct Seat {
  int lane, chunk, first, place;
  __device__ __forceinline__ Seat() {
    const int t128 = threadIdx.x % 128;
    lane = t128 % 32, chunk = t128 % 8, first = t128 / 8, place = first * 128 + (chunk ^ (first & 7)) * 16;
  }
  /** m: of the first panel's four rows, then of the second's. */
  template <class T> __device__ __forceinline__ T* at(uint8_t* smem, const Slot& s, int m) const {
    return reinterpret_cast<T*>(smem + s.at * STAGE + m / 4 * PANEL + m % 4 * 2048 + place);
  }
};

/**
 * A stage of this warpgroup's. Its last use may have been the other warpgroup's, and that not even loaded yet; a barrier tells two
 * phases apart and not three, so that use must be over before `full` is asked.
 */
__device__ __forceinline__ void wait_for_stage(const Barriers& bar, const Slot& s) {
  wait(&bar.empty[s.at], s.phase ^ 1);
  wait(&bar.full[s.at], s.phase);
}

/**
 * Each block's number of each row goes to all blocks, thread by thread to the block of its chunk. Returns those of this thread's
 * first row; block b's lie b * ROWS on. Four rooms: whoever sends a tile's has, in the same warpgroup, got the tile's before the
 * last, so all blocks have read the one before that.
 */
__device__ __forceinline__ const float* exchange(const Work& w, const Seat& t, float* rooms, uint64_t* bars, int it, const float (&x)[4]) {
  float* here = rooms + (it & 3) * CLUSTER * ROWS;
  const uint32_t to = remote_address(here + w.rank * ROWS + t.first, t.chunk), told = remote_address(&bars[it & 3], t.chunk);
  if (threadIdx.x % 128 == 0) expect_bytes(&bars[it & 3], CLUSTER * ROWS * 4);
#pragma unroll
  for (int m = 0; m < 4; m++) store_remote(to + m * 64, x[m], told);
  wait_remote(&bars[it & 3], it >> 2 & 1);
  return here + t.first;
}

/** Sixteen values of a row, as T holds them, in e4m3; `column`: the stage's first. */
__device__ __forceinline__ void round_row(const Params& q, const Job& g, const Seat& t, int row, int column, const float (&v)[2][8]) {
  float best = 0;
#pragma unroll
  for (int j = 0; j < 16; j++) best = fmaxf(best, fabsf(v[j / 8][j % 8]));
#pragma unroll
  for (int o = 4; o; o >>= 1) best = fmaxf(best, __shfl_xor_sync(~0u, best, o));
  if (row >= q.M) return;
  const float by = inverse_of(best);
  uint8_t* out = g.to8 + static_cast<size_t>(row) * g.K + column + t.chunk * 8;
  *reinterpret_cast<uint2*>(out) = eight_e4m3(v[0], by), *reinterpret_cast<uint2*>(out + 64) = eight_e4m3(v[1], by);
  if (t.chunk == 0) g.scale8[column / COLUMNS * scale_rows(q.M) + row] = scale_of(best);
}

/** Every other stage; what is rounded has a multiple of 128 columns, so each is whole. */
template <class T> __device__ __forceinline__ void round_rows(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, int which) {
  const Job& g = q.job[w.job];
  const Seat t;
  Slot s;
  s.advance(which, q.room.ring);
  int row = w.first * ROWS + t.first, i = which;
  for (int n = which; n < w.tiles * w.stages; n += 2, i += 2, s.advance(2, q.room.ring)) {
    for (; i >= w.stages; i -= w.stages) row += ROWS;
    wait_for_stage(bar, s);
#pragma unroll
    for (int m = 0; m < 4; m++) {
      float v[2][8];
      load<8>(t.at<const T>(smem, s, m), v[0]), load<8>(t.at<const T>(smem, s, m + 4), v[1]);
      round_row(q, g, t, row + 16 * m, w.c0 + i * COLUMNS, v);
    }
    arrive(&bar.empty[s.at]);
  }
}

}  // namespace wide
}  // namespace us
