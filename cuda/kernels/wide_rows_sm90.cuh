// What two warpgroups do in turn with the rows of a pass over a wide matrix (wide_sm90.cu): a row's largest value over all
// blocks of the cluster, then the row in e4m3. Eight threads a row and panel of 64 columns.
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
 * A stage of this warpgroup's tile. Its last use may have been the other warpgroup's, and that not even loaded yet; a barrier tells two
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

/** A tile's rows in e4m3, by the largest values of this block's columns in `best`. The stages from `s` are given back. */
template <class T>
__device__ __forceinline__ void round_tile(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, const Seat& t, int it, Slot& s,
                                           float (&best)[4]) {
  const Job& g = q.job[w.job];
  const int row = (w.first + it) * ROWS + t.first;
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int o = 4; o; o >>= 1) best[m] = fmaxf(best[m], __shfl_xor_sync(~0u, best[m], o));
  const float* all = exchange(w, t, reinterpret_cast<float*>(smem + q.room.largest), bar.largest, it, best);
#pragma unroll
  for (int m = 0; m < 4; m++) {
    best[m] = 0;
#pragma unroll
    for (int b = 0; b < CLUSTER; b++) best[m] = fmaxf(best[m], all[b * ROWS + 16 * m]);
    if (w.rank == 0 && t.chunk == 0 && row + 16 * m < q.M) g.scale8[row + 16 * m] = scale_of(best[m]);
    best[m] = inverse_of(best[m]);
  }
  uint8_t* out = g.to8 + static_cast<size_t>(row) * g.K + w.c0 + t.chunk * 8;
  for (int i = 0; i < w.stages; i++, s.advance(1, q.room.ring)) {
#pragma unroll
    for (int m = 0; m < 8; m++) {
      float v[8];
      load<8>(t.at<const T>(smem, s, m), v);
      const uint2 word = eight_e4m3(v, best[m % 4]);
      if (row + m % 4 * 16 < q.M) *reinterpret_cast<uint2*>(out + static_cast<size_t>(m % 4 * 16) * g.K + i * COLUMNS + m / 4 * 64) = word;
    }
    __syncwarp();
    if (t.lane == 0) arrive(&bar.empty[s.at]);
  }
}

/** Every other tile. */
template <class T> __device__ __forceinline__ void round_rows(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, int which) {
  const Seat t;
  Slot s;
  s.advance(which * w.stages, q.room.ring);
  for (int it = which; it < w.tiles; it += 2) {
    Slot again = s;
    float best[4] = {}, v[8];
    for (int i = 0; i < w.stages; i++, s.advance(1, q.room.ring)) {
      wait_for_stage(bar, s);
#pragma unroll
      for (int m = 0; m < 8; m++) {
        load<8>(t.at<const T>(smem, s, m), v);
#pragma unroll
        for (int j = 0; j < 8; j++) best[m % 4] = fmaxf(best[m % 4], fabsf(v[j]));
      }
    }
    round_tile<T>(q, w, smem, bar, t, it, again, best);
    s.advance(w.stages, q.room.ring);  // the other warpgroup's tile
  }
}

}  // namespace wide
}  // namespace us
