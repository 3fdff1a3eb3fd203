// What stands for an operation of which only the tensors matter, read or written.
#pragma once
#include <stdint.h>
#include <string.h>

#include <vector>

namespace fake {

struct Bytes { void* p; size_t bytes; };

/** Every byte of the outputs = 3 * itself + a sum over the inputs + salt. */
inline void mix(const std::vector<Bytes>& to, const std::vector<Bytes>& from, uint32_t salt) {
  auto copies = [](const std::vector<Bytes>& list) {
    std::vector<std::vector<uint8_t>> all;
    for (const Bytes& b : list) {
      const uint8_t* p = static_cast<const uint8_t*>(b.p);
      all.emplace_back(p, p + b.bytes);
    }
    return all;
  };
  std::vector<std::vector<uint8_t>> in = copies(from), out = copies(to);
  for (size_t o = 0; o < out.size(); o++) {
    for (size_t i = 0; i < out[o].size(); i++) {
      uint32_t x = 3u * out[o][i] + salt + static_cast<uint32_t>(o);
      for (size_t k = 0; k < in.size(); k++)
        if (!in[k].empty()) x += (2 * static_cast<uint32_t>(k) + 1) * in[k][i % in[k].size()];
      out[o][i] = static_cast<uint8_t>(x);
    }
    if (!out[o].empty()) memcpy(to[o].p, out[o].data(), out[o].size());
  }
}

inline uint32_t bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u ^ u >> 16;
}
inline uint32_t norm_salt(uint32_t kind, float eps, bool plus_one) { return kind * 2 + plus_one + 5 * bits(eps); }

}  // namespace fake
