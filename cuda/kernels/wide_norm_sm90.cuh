// A pass over a wide matrix (wide_sm90.cu) whose rows are made in it: x comes through the ring, and two warpgroups in turn make
// y of it in place, its RMS norm (rms.cuh), before the warpgroup that multiplies and the copy engine take it. A tile's squares
// are added over the block's columns and exchanged over the cluster; so the ring holds at least a whole tile.
#pragma once
#include "rms.cuh"
#include "wide_rows_sm90.cuh"

namespace us {
namespace wide {

static_assert(rms::PARTS == CLUSTER && rms::STAGE_COLUMNS == COLUMNS && rms::MOST_STAGES == MOST, "a part is a block's columns");

/** This block's columns of the weight, or of 1 + it, in f32; zeros beyond. */
__device__ __forceinline__ void load_gain(const Params& q, const Work& w, uint8_t* smem, int thread, int threads) {
  const Job& g = q.job[w.job];
  float* gain = reinterpret_cast<float*>(smem + q.room.gain);
  for (int i = thread; i < w.stages * COLUMNS; i += threads) {
    float v[1] = {};
    if (w.c0 + i < g.K) load_any<1>(g.w, g.w_type, w.c0 + i, v), v[0] = __fadd_rn(v[0], g.plus);
    gain[i] = v[0];
  }
}

/** 1 / std of this thread's rows of a tile, whose stages arrive from `s`; one block writes it. */
template <class T>
__device__ __forceinline__ void find_rstd(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, const Seat& t, int it, Slot& s,
                                          float (&rstd)[4]) {
  const Job& g = q.job[w.job];
  const int row = (w.first + it) * ROWS + t.first;
  float sum[4] = {};
  for (int i = 0; i < w.stages; i++, s.advance(1, q.room.ring)) {
    wait_for_stage(bar, s);
#pragma unroll
    for (int m = 0; m < 8; m++) {
      float v[8];
      load<8>(t.at<const T>(smem, s, m), v);
      rms::add_squares(sum[m % 4], v);
    }
  }
#pragma unroll
  for (int m = 0; m < 4; m++) sum[m] = rms::sum_of_eight(sum[m]);
  const float* all = exchange(w, t, reinterpret_cast<float*>(smem + q.room.squares), bar.squares, it, sum);
#pragma unroll
  for (int m = 0; m < 4; m++) {
    rstd[m] = rms::rstd_of(all + 16 * m, ROWS, g.K, g.eps);
    float* stat = g.norm_stat + 2 * static_cast<size_t>(row + 16 * m);
    if (w.rank == 0 && t.chunk == 0 && row + 16 * m < q.M) stat[0] = 0.0f, stat[1] = rstd[m];
  }
}

/**
 * Every other tile: y in place, and with ROUND in e4m3 too. Rows beyond M are zeros (without eps perhaps NaN) that nobody stores;
 * a column beyond K is a zero.
 */
template <class T, bool ROUND>
__device__ __forceinline__ void norm_rows(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar, int which) {
  const Seat t;
  const Job& g = q.job[w.job];
  const float* gains = reinterpret_cast<const float*>(smem + q.room.gain) + t.chunk * 8;
  Slot s;
  s.advance(which * w.stages, q.room.ring);
  for (int it = which; it < w.tiles; it += 2) {
    Slot again = s;
    float rstd[4];
    find_rstd<T>(q, w, smem, bar, t, it, s, rstd);
    for (int i = 0; i < w.stages; i++, again.advance(1, q.room.ring)) {
      float gain[8];
      uint4 y[8];  // what is stored
#pragma unroll
      for (int m = 0; m < 8; m++) {
        if (m % 4 == 0) load<8>(gains + i * COLUMNS + m / 4 * 64, gain);
        float v[8];
        uint4* at = reinterpret_cast<uint4*>(t.at<T>(smem, again, m));
        load<8>(reinterpret_cast<const T*>(at), v);
        rms::scale_row(v, rstd[m % 4], gain);
        *at = y[m] = make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
      }
      fence_async();
      arrive(&bar.normed[again.at]);  // every thread, here and in round_rows, where one a warp would do: racecheck knows no other way
#pragma unroll
      for (int m = 0; ROUND && m < 4; m++) {
        float v[2][8];
        load<8>(reinterpret_cast<const T*>(&y[m]), v[0]), load<8>(reinterpret_cast<const T*>(&y[m + 4]), v[1]);
        round_row(q, g, t, (w.first + it) * ROWS + t.first + 16 * m, w.c0 + i * COLUMNS, v);
      }
    }
    s.advance(w.stages, q.room.ring);  // the other warpgroup's tile
  }
}

/** y's way out, by one thread; a stage is given back while the next one leaves, so one more than a tile's must be there. */
__device__ __forceinline__ void send_rows(const Params& q, const Work& w, uint8_t* smem, const Barriers& bar) {
  const CUtensorMap* y = &q.map[w.job].y;
  const int K = q.job[w.job].K;
  Slot s;
  int before = -1;
  for (int it = 0; it < w.tiles; it++)
    for (int i = 0; i < w.stages; i++, s.advance(1, q.room.ring)) {
      const int row = (w.first + it) * ROWS, column = w.c0 + i * COLUMNS;
      const uint8_t* from = smem + s.at * STAGE;
      wait(&bar.normed[s.at], s.phase);
      store_2d(y, from, column, row);
      if (column + 64 < K) store_2d(y, from + PANEL, column + 64, row);
      store_commit();
      store_wait_read<1>();
      if (before >= 0) arrive(&bar.empty[before]);
      before = s.at;
    }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

}  // namespace wide
}  // namespace us
