// What the makers of random calls (program.cpp) draw from: chances, places in the arena, tensors written lately.
#pragma once
#include "program.h"

inline constexpr uint32_t ROWS[] = {16, 8, 24}, WIDE[] = {72, 64, 80}, RANKS[] = {16, 8, 32};

inline uint64_t below(uint64_t n) { return fake::random() % n; }
inline bool chance(int percent) { return below(100) < static_cast<uint64_t>(percent); }

inline bool disjoint(const T& a, const T& b) {
  return !a.handle || !b.handle || offset_of(a) + size_of(a) <= offset_of(b) || offset_of(b) + size_of(b) <= offset_of(a);
}

/** What a maker of calls has in hand: what was written lately, and the habits of this stretch. */
struct Hand {
  std::vector<T> thins, results, inputs, adapters, positions, frequencies;
  int own_places = 0;  // percent of a feed-forward's tensors that lie where no other of it does
  uint64_t next_place = 0;
  std::vector<Step> queue;  // what comes next, whatever comes after
  uint32_t rows = 16, trans_b = 1, dtype = US_BF16, rank = 16, wide = 72;
  int wildness = 5;  // percent of tensors that lie anywhere
  int burst = 0;     // so many more calls are thin products of one input and additions to one result
  uint32_t half = 4; // rotated pairs of a head
  bool turning = false;  // whether there are stretches of these two kinds:
  int turns = 0;     // so many more calls are mostly rotations of what attention's backward wrote
  int spin = 0;      // so many more calls are products and rotations of their results

  void habits() {
    rows = ROWS[chance(80) ? 0 : below(3)], trans_b = chance(75), dtype = chance(70) ? US_BF16 : US_F16;
    rank = RANKS[chance(60) ? 0 : below(3)], wide = WIDE[chance(60) ? 0 : below(3)];
    wildness = chance(30) ? 25 : 4;
  }
  /** One of a few places of 4 KiB for activations, of 16 KiB for weights, of 1 KiB for thin results; or anywhere. */
  T place(uint32_t type, std::vector<uint32_t> shape) {
    T t = view(1, 0, type, shape);
    const uint64_t bytes = size_of(t), grid = bytes <= 1024 ? 1024 : bytes <= 4096 ? 4096 : 16384;
    const uint64_t from = bytes <= 1024 ? 0 : bytes <= 4096 ? 8 << 10 : 48 << 10, places = bytes <= 1024 ? 8 : bytes <= 4096 ? 10 : 8;
    uint64_t at = from + below(places) * grid;
    T other;
    const bool beside = chance(wildness) && recent(chance(40) ? results : chance(50) ? thins : inputs, other);
    if (beside) at = offset_of(other) + (chance(50) ? 0 : below(size_of(other) / 16) * 16);
    else if (chance(wildness)) at = below((ARENA - bytes) / 16) * 16 + (chance(10) ? 4 : 0);
    if (type == US_FP8_128) at = at / 16 * 16;
    t.off_lo = static_cast<uint32_t>(std::min(at, (ARENA - bytes) / 256 * 256));
    return t;
  }
  template <class V> bool recent(const V& list, T& t) {
    if (list.empty() || chance(15)) return false;
    if (burst > 0 || spin > 0) return t = list.back(), true;
    t = list[list.size() - 1 - below(chance(85) ? std::min<size_t>(list.size(), 3) : list.size())];
    return true;
  }
  T input(uint32_t K) {
    T x;
    if (recent(inputs, x) && cols(x) == K && rows_of(x) == rows && x.dtype == dtype) return x;
    x = place(dtype, {rows, K});
    inputs.push_back(x);
    return x;
  }
  static float factor() { return chance(70) ? 1.0f : static_cast<float>(1 + below(3)); }
};
