// Kernels on the CPU in whole numbers: a 16-bit element is a number modulo 2^16, an f32 one modulo 2^32, a factor the whole
// number nearest; f16 stores three times its number, so that it is not bf16. Rounding a sum once or at each addition is then
// the same to the bit, so products that waited and joined must give exactly what they give one by one, and every bit that went
// wrong shows. A gradient's sum is modulo 2^16 as its factors are, so that these may be multiplied in another order. Each launch also asserts what makes it one launch: nothing that one part of it writes is read or written by another.
#pragma once
#include <string.h>

#include "../../../cuda/host/library.h"
#include "../../../cuda/kernels/low_rank.h"
#include "fake.h"

namespace us {

inline size_t width(int dtype) {  // bits
  return dtype == F32 || dtype == I32 ? 32 : dtype == BF16 || dtype == F16 ? 16 : us_bytes(static_cast<uint32_t>(dtype), 256) * 8 / 256;
}

/** Element i of any type as a whole number; of a packed type the byte it lies in. */
inline uint32_t at(const void* p, int dtype, size_t i) {
  const char* c = static_cast<const char*>(p);
  uint32_t x = 0;
  if (width(dtype) == 32 || width(dtype) == 16) memcpy(&x, c + i * width(dtype) / 8, width(dtype) / 8);
  else memcpy(&x, c + i * width(dtype) / 8, 1);
  return dtype == F16 ? x * 43691 & 0xffff : x;  // 3 * 43691 = 1 modulo 2^16
}
inline void put(void* p, int dtype, size_t i, uint32_t x) {
  if (dtype == F16) x *= 3;
  memcpy(static_cast<char*>(p) + i * width(dtype) / 8, &x, width(dtype) / 8);
}
inline uint32_t whole(float x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }

/** An input's copy for a product at 8 bits: here the 16 bits themselves, its scales ones. */
inline void copy_rows(const void* from, uint8_t* to, float* scale, size_t M, size_t K) {
  memmove(to, from, M * K * 2);
  for (size_t m = 0; m < M; m++) put(scale, F32, m, 1);
}

/** What a launch reads and writes. `owner`: a part may read what it writes itself. */
struct Touch { const void* p; size_t bytes; int owner; };
struct Launch {
  std::vector<Touch> reads, writes;
  void read(const void* p, size_t bytes, int owner = -1) { reads.push_back({p, p ? bytes : 0, owner}); }
  void write(const void* p, size_t bytes, int owner = -2) { writes.push_back({p, p ? bytes : 0, owner}); }
  static bool meet(const Touch& a, const Touch& b) {
    const char *x = static_cast<const char*>(a.p), *y = static_cast<const char*>(b.p);
    return a.bytes && b.bytes && x < y + b.bytes && y < x + a.bytes;
  }
  void check() const {
    for (size_t i = 0; i < writes.size(); i++) {
      for (const Touch& r : reads)
        if (meet(writes[i], r) && !(r.owner == writes[i].owner && r.p == writes[i].p)) fake::broken("a launch reads what it writes");
      for (size_t j = 0; j < i; j++)
        if (meet(writes[i], writes[j])) fake::broken("a launch writes the same place twice");
    }
  }
};
inline void limit(bool ok, const char* rule) {
  if (!ok) fake::broken(rule);
}
inline int run(const char* name, std::function<void()> kernel) { return fake::launch(stream(), std::move(kernel)), launched(name); }

/** A matrix of a product as whole numbers, [rows, K] with K along a row; `by_k`: it is stored [K, rows]. */
struct Matrix {
  size_t K;
  std::vector<uint32_t> x;
  Matrix(const void* p, int dtype, bool by_k, size_t rows, size_t K) : K(K), x(rows * K) {
    for (size_t r = 0; r < rows; r++)
      for (size_t k = 0; k < K; k++) x[r * K + k] = at(p, dtype, by_k ? k * rows + r : r * K + k);
  }
};
inline uint32_t dot(const Matrix& a, size_t m, const Matrix& b, size_t n) {
  uint32_t sum = 0;
  for (size_t k = 0; k < a.K; k++) sum += a.x[m * a.K + k] * b.x[n * a.K + k];
  return sum;
}

inline void touch(Launch& l, const Thin& t, int b_type, size_t M, int i) {
  l.read(t.a, M * t.K * 2);
  for (int j = 0; j < t.count; j++) {
    const size_t bytes = M * static_cast<size_t>(t.r) * 2;
    l.read(t.b[j], t.K * static_cast<size_t>(t.r) * width(b_type) / 8);
    if (t.beta != 0) l.read(t.c[j], bytes, i * MAX_SHARING + j);
    l.write(t.c[j], bytes, i * MAX_SHARING + j), l.write(t.copy[j], bytes), l.write(t.scaled[j], bytes);
    if (t.scaled[j]) l.read(t.stat, M * 8);
  }
}
inline void multiply(const Thin& t, int dtype, int b_type, bool by_k, size_t M) {
  for (int j = 0; j < t.count; j++) {
    const size_t r = static_cast<size_t>(t.r);
    const Matrix a(t.a, dtype, false, M, t.K), b(t.b[j], b_type, by_k, r, t.K);
    for (size_t i = 0; i < M * r; i++) {
      uint32_t x = whole(t.alpha[j]) * dot(a, i / r, b, i % r);
      if (t.beta != 0) x += whole(t.beta) * at(t.c[j], dtype, i);
      if (t.c[j]) put(t.c[j], dtype, i, x);
      if (t.copy[j]) put(t.copy[j], dtype, i, x);
      if (t.scaled[j]) put(t.scaled[j], dtype, i, x * at(t.stat, F32, 2 * (i / r) + 1));
    }
  }
}
inline void touch(Launch& l, const Tall& t, size_t N) {
  l.read(t.wide, N * t.W * 2);
  if (t.columns.p) l.read(t.columns.p, t.W * width(t.columns.dtype) / 8);
  for (int j = 0; j < t.count; j++) {
    l.read(t.thin[j], N * static_cast<size_t>(t.r) * 2);
    l.write(t.out[j], t.W * static_cast<size_t>(t.r) * 4);
  }
}
inline void multiply(const Tall& t, int dtype, size_t N) {
  for (int j = 0; j < t.count; j++) {
    const size_t r = static_cast<size_t>(t.r);
    const Matrix wide(t.wide, dtype, true, t.W, N), narrow(t.thin[j], dtype, true, r, N);
    for (size_t w = 0; w < t.W; w++)
      for (size_t c = 0; c < r; c++) {
        const size_t i = t.by_rank ? c * t.W + w : w * r + c;
        const uint32_t factor = t.columns.p ? at(t.columns.p, t.columns.dtype, w) + whole(t.columns.plus) : 1;
        put(t.out[j], F32, i, at(t.out[j], F32, i) + whole(t.alpha[j]) * (factor * dot(wide, w, narrow, c) & 0xffff));
      }
  }
}

inline void touch(Launch& l, const Cast* casts, int count) {
  limit(count <= MAX_CASTS, "too many casts in a launch");
  for (int i = 0; i < count; i++) {
    limit(casts[i].count % 8 == 0, "a cast of no multiple of eight");
    l.read(casts[i].from, casts[i].count * 4), l.write(casts[i].to, casts[i].count * 2);
  }
}
inline void round(const Cast& c, int dtype) {
  for (size_t i = 0; i < c.count; i++) put(c.to, dtype, i, whole(c.factor) * at(c.from, F32, i));
}

}  // namespace us
