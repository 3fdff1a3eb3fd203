// How a kernel turns what it writes, in place of a us_rope after it (cuda/host/pending_rope.cpp).
#pragma once

namespace us {

/**
 * Heads of 2 * half features, feature i with i + half. `table`: cos and sin of the angles, times a factor, a row of half pairs a
 * token (rope_table); `sign`: the sine's. Without a table nothing is turned.
 */
struct Rotation {
  const float* table = nullptr;
  int half = 0;
  float sign = 1;
};

}  // namespace us
