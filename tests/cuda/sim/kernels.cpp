// The products and thin products as seen by cuda/host, on the CPU (whole.h says how). The thresholds on sizes are smaller than
// the real kernels'.
#include <string.h>

#include "../../../cuda/host/kernels.h"
#include "../../../cuda/host/pending.h"
#include "../../../cuda/kernels/fp8.h"
#include "../../../cuda/kernels/gemm.h"
#include "../../../cuda/kernels/gemm_sm90.h"
#include "mix.h"
#include "rotate.h"
#include "whole.h"

namespace us {
namespace {

/** The weight of a segment: 8-bit values lie as [N,K] whatever the layout of the others. */
Matrix weight_of(const Segment& s, int dtype, bool b_by_k, size_t N) {
  return s.b_scale ? Matrix(s.b, U8, false, N, s.K) : Matrix(s.b, dtype, b_by_k, N, s.K);
}

}  // namespace

int product(const Gemm& g) {
  return run("matmul", [g] {
    const Matrix a(g.a, g.a_type, g.trans_a, g.M, g.K);
    const Matrix b = g.b_type == FP8_128 ? weight_of(fp8_segment(g), g.a_type, false, g.N) : Matrix(g.b, g.b_type, !g.trans_b, g.N, g.K);
    for (size_t m = 0; m < g.M; m++)
      for (size_t n = 0; n < g.N; n++) {
        const size_t i = m * g.ldc + n;
        uint32_t x = whole(g.alpha) * (dot(a, m, b, n) & (g.trans_a && g.a_type != F32 ? 0xffff : ~0u));
        if (g.beta != 0) x += whole(g.beta) * at(g.c, g.c_type, i);
        if (g.bias) x += at(g.bias, g.bias_type, n);
        put(g.c, g.c_type, i, x);
      }
  });
}

namespace {

bool is_rank(size_t r) { return r % 8 == 0 && r > 0 && r <= 64; }
template <class... P> bool aligned16(P... p) { return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...); }

int thin(const char* name, int dtype, int b_type, bool by_k, size_t M, const Thin* list, int count) {
  limit(count >= 1 && count <= MAX_THIN, "too many thin products in a launch");
  Launch l;
  for (int i = 0; i < count; i++) {
    const Thin& t = list[i];
    limit(t.count <= MAX_SHARING && t.count * t.r <= 64 && t.r == list[0].r && t.count == list[0].count, "thin products of other shapes");
    limit(thin_fits_sm90(t) == (b_type != F32) || !has_sm90(), "a thin product in the launch of another kernel");
    touch(l, t, b_type, M, i);
  }
  l.check();
  std::vector<Thin> all(list, list + count);
  return run(name, [=] {
    for (const Thin& t : all) multiply(t, dtype, b_type, by_k, M);
  });
}

int tall(const char* name, bool sm90, int dtype, size_t N, const Tall* list, int count) {
  limit(count >= 1 && count <= MAX_TALL, "too many tall products in a launch");
  Launch l;
  for (int i = 0; i < count; i++) {
    const Tall& t = list[i];
    limit(t.count <= MAX_SHARING && t.count * t.r <= 64 && t.r == list[0].r && t.count == list[0].count, "tall products of other shapes");
    limit(tall_fits_sm90(t) == sm90, "a tall product in the launch of another kernel");
    touch(l, t, N);
  }
  l.check();
  std::vector<Tall> all(list, list + count);
  return run(name, [=] {
    for (const Tall& t : all) multiply(t, dtype, N);
  });
}

}  // namespace

// ---- products ----

bool has_sm90() { return fake::settings.hopper && capability() == 90; }
bool fits_sm90(size_t M, size_t N, const Segment& s, bool) {
  return M >= 8 && N >= 8 && N % 8 == 0 && s.K % 8 == 0 && s.K > 0 && aligned16(s.a, s.b);
}
bool is_thin(const Gemm& g) {
  if (g.a_type == F32 || g.c_type != g.a_type || g.b_type != F32 || g.trans_a || g.bias || g.ldc != g.N) return false;
  return is_rank(g.N) && g.K % 8 == 0 && g.M >= 8 && aligned16(g.a, g.b, g.c);
}
Thin thin_of(const Gemm& g) {
  Thin t{};
  t.a = g.a, t.b[0] = g.b, t.given[0] = static_cast<const float*>(g.b), t.c[0] = g.c, t.alpha[0] = g.alpha, t.K = g.K;
  t.r = static_cast<int>(g.N), t.count = 1, t.beta = g.beta;
  return t;
}
bool is_tall(const Gemm& g) {
  if (g.a_type == F32 || g.b_type != g.a_type || g.c_type != F32 || !g.trans_a || g.trans_b || g.bias) return false;
  if (g.beta != 1.0f || g.ldc != g.N || g.K < 8 || !aligned16(g.a, g.b, g.c)) return false;
  return (is_rank(g.M) && g.N % 8 == 0) || (is_rank(g.N) && g.M % 8 == 0);
}
Tall tall_of(const Gemm& g) {
  Tall t{};
  t.by_rank = is_rank(g.M);
  t.wide = t.by_rank ? g.b : g.a, t.thin[0] = t.by_rank ? g.a : g.b, t.out[0] = static_cast<float*>(g.c);
  t.alpha[0] = g.alpha, t.W = t.by_rank ? g.N : g.M, t.r = static_cast<int>(t.by_rank ? g.M : g.N), t.count = 1;
  return t;
}
bool thin_scales(const Thin& t) { return thin_fits_sm90(t); }
bool thin_fits_sm90(const Thin& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.beta == 0.0f && t.K >= 72; }
bool tall_fits_sm90(const Tall& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.W >= 72; }
int run_thin(int dtype, bool by_k, size_t M, const Thin* l, int n) { return thin("thin products", dtype, F32, by_k, M, l, n); }
int run_thin_sm90(int dtype, bool by_k, size_t M, const Thin* l, int n) { return thin("thin products", dtype, dtype, by_k, M, l, n); }
int run_tall(int dtype, size_t N, const Tall* l, int n) { return tall("tall products", false, dtype, N, l, n); }
int run_tall_sm90(int dtype, size_t N, const Tall* l, int n) { return tall("tall products", true, dtype, N, l, n); }

int cast_adapters(int dtype, const Cast* casts, int count) {
  limit(count >= 1, "a launch of no casts");
  Launch l;
  touch(l, casts, count);
  l.check();
  std::vector<Cast> all(casts, casts + count);
  return run("casts", [=] {
    for (const Cast& c : all) round(c, dtype);
  });
}

// ---- 8-bit weights: an input's rounded copy is here the 16 bits themselves, its scales are ones ----

namespace {
void touch(Launch& l, const void* from, const uint8_t* to, const float* scale, size_t M, size_t K) {
  l.read(from, M * K * 2), l.write(to, M * K * 2), l.write(scale, M * 4);
}
}  // namespace

int place_rounded(size_t M, Product* products, int count, Rounded* list, int& n) {
  std::vector<Segment*> segments;
  for (int q = 0; q < count; q++)
    for (int s = 0; s < products[q].segments; s++)
      if (products[q].segment[s].b_scale) segments.push_back(&products[q].segment[s]);
  auto find = [&](const Segment* s) {
    int j = 0;
    while (j < n && (list[j].from != s->a || list[j].K != s->K)) j++;
    return j;
  };
  n = 0;
  size_t bytes = 0;
  for (const Segment* s : segments)
    if (find(s) == n) list[n++] = {s->a, s->K, nullptr, nullptr, false}, bytes += M * s->K * 2 + M * 4;
  char* room = static_cast<char*>(scratch(SCRATCH_FP8, bytes));
  if (!room) return US_MEMORY;
  for (int j = 0; j < n; j++) {
    list[j].to = reinterpret_cast<uint8_t*>(room), room += M * list[j].K * 2;
    list[j].scale = reinterpret_cast<float*>(room), room += M * 4;
  }
  for (Segment* s : segments) {
    const Rounded& r = list[find(s)];
    s->a = r.to, s->a_scale = r.scale;
  }
  return US_OK;
}

int round_inputs(int, size_t M, const Rounded* list, int count) {
  Launch l;
  std::vector<Rounded> all;
  for (int j = 0; j < count; j++)
    if (!list[j].done) all.push_back(list[j]), touch(l, list[j].from, list[j].to, list[j].scale, M, list[j].K);
  l.check();
  if (all.empty()) return US_OK;
  return run("inputs to 8 bits", [=] {
    for (const Rounded& r : all) copy_rows(r.from, r.to, r.scale, M, r.K);
  });
}

// ---- one pass over a wide matrix ----

bool wide_fits_sm90(const Thin& t, int count) {
  return has_sm90() && t.r == 16 && t.beta == 0.0f && t.K >= 72 && count <= (t.K == 80 ? 1 : MAX_SHARING);
}

bool wide_norm_fits_sm90(size_t K, int count) { return has_sm90() && K >= 72 && K % 8 == 0 && count <= (K == 128 ? 1 : MAX_SHARING); }

namespace {
/** The norm's bytes, as sim/ops.cpp's norm() makes them. */
void make_norm(const Normed& n, size_t M, size_t K) {
  fake::mix({{n.y, M * K * 2}, {n.stat, M * 8}}, {{const_cast<void*>(n.x), M * K * 2}, {const_cast<void*>(n.w), K * width(n.w_type) / 8}},
            fake::norm_salt(US_RMS, n.eps, n.plus_one));
}
/** What a pass reads, if not the matrix that its norm makes. */
const void* read_by(const Wide& w) { return w.norm.x ? w.norm.x : w.thin.a; }
void touch(Launch& l, const Wide& w, size_t M, int i) {
  Thin t = w.thin;
  t.a = read_by(w);
  touch(l, t, F32, M, i);
  if (w.to8) touch(l, t.a, w.to8, w.scale8, M, t.K);
  if (!w.norm.x) return;
  limit(w.norm.y == w.thin.a && !w.tall.wide && wide_norm_fits_sm90(t.K, w.count) && aligned16(w.norm.x, w.norm.w), "a norm that a pass does not make");
  l.read(w.norm.w, t.K * width(w.norm.w_type) / 8), l.write(w.norm.y, M * t.K * 2), l.write(w.norm.stat, M * 8);
}
}  // namespace

int run_wide_sm90(int dtype, bool by_k, size_t M, const Wide* list, int count, const Cast* casts, int cast_count) {
  limit(count >= 1 && count <= MAX_THIN, "too many passes in a launch");
  Launch l;
  for (int i = 0; i < count; i++) {
    const Wide& w = list[i];
    limit(w.r == w.thin.r && w.count == w.thin.count && w.count == list[0].count, "passes of other shapes");
    limit(wide_fits_sm90(w.thin, w.count), "a pass that does not fit");
    limit(!w.tall.wide == !list[0].tall.wide && !w.to8 == !list[0].to8 && !w.norm.x == !list[0].norm.x, "passes that give different things");
    touch(l, w, M, i);
    if (w.tall.wide) {
      limit(w.tall.wide == w.thin.a && w.tall.W == w.thin.K && w.tall.r == w.thin.r, "another matrix's gradient");
      limit(w.tall.count == 1 && w.count == 1, "a gradient beside products that share");
      touch(l, w.tall, M);
    }
  }
  touch(l, casts, cast_count);
  l.check();
  std::vector<Wide> all(list, list + count);
  std::vector<Cast> also(casts, casts + cast_count);
  return run("wide", [=] {
    for (const Cast& c : also) round(c, dtype);
    for (const Wide& w : all) {
      if (w.norm.x) make_norm(w.norm, M, w.thin.K);
      multiply(w.thin, dtype, F32, by_k, M);
      if (w.tall.wide) multiply(w.tall, dtype, M);
      if (w.to8) copy_rows(w.thin.a, w.to8, w.scale8, M, w.thin.K);
    }
  });
}

/** Values as [R,C] and as [C,R], then scales; here only the place of the scales matters. */
Segment fp8_segment(const Gemm& g) {
  const size_t numel = g.N * g.K;
  const uint8_t* w = static_cast<const uint8_t*>(g.b);
  Segment s{g.a, g.trans_b ? w : w + numel, g.K};
  s.b_scale = reinterpret_cast<const float*>(w + 2 * numel);
  return s;
}

namespace {
int segmented(int dtype, bool b_by_k, size_t M, const Product* products, int count) {
  limit(count >= 1 && count <= MAX_PRODUCTS, "too many products in a launch");
  Launch l;
  int segments = 0;
  for (int q = 0; q < count; q++) {
    const Product& p = products[q];
    segments += p.segments;
    if (p.addend) l.read(p.addend, M * p.N * 2, q);
    if (p.bias) l.read(p.bias, p.N * width(p.bias_type) / 8);
    if (p.rotation.table) {
      const size_t half = static_cast<size_t>(p.rotation.half);
      limit(rotates_sm90(p.N, 2 * half, half, p.segment[0].b_scale) && !p.addend, "a product that cannot turn");
      l.read(p.rotation.table, M * half * 8);
    }
    limit(aligned16(p.c) && reinterpret_cast<uintptr_t>(p.addend) % 4 == 0, "a product off its alignment");
    for (int s = 0; s < p.segments; s++) {
      limit(fits_sm90(M, p.N, p.segment[s], b_by_k) || p.segment[s].b_scale, "a segment that the copy engine does not take");
      limit(!p.segment[s].b_scale == !p.segment[s].a_scale, "an 8-bit weight with an input of 16");
      const Segment& g = p.segment[s];
      l.read(g.a, M * g.K * 2), l.read(g.b, p.N * g.K * (g.b_scale ? 1 : 2));
    }
    l.write(p.c, M * p.N * 2, q);
  }
  limit(segments <= MAX_SEGMENTS, "too many segments in a launch");
  l.check();
  std::vector<Product> all(products, products + count);
  return run("products", [=] {
    for (const Product& p : all) {
      std::vector<uint32_t> sums(M * p.N);
      for (int s = 0; s < p.segments; s++) {
        const Segment& g = p.segment[s];
        const Matrix a(g.a, dtype, false, M, g.K), b = weight_of(g, dtype, b_by_k, p.N);
        for (size_t i = 0; i < sums.size(); i++) {
          const uint32_t scale = g.a_scale ? at(g.a_scale, F32, i / p.N) : 1;
          sums[i] += whole(p.alpha) * dot(a, i / p.N, b, i % p.N) * scale;
        }
      }
      for (size_t i = 0; i < sums.size(); i++) {
        if (p.addend) sums[i] += at(p.addend, dtype, i);
        if (p.bias) sums[i] += at(p.bias, p.bias_type, i % p.N);
      }
      if (p.rotation.table) fake::rotate(sums.data(), p.N, M, 2 * static_cast<size_t>(p.rotation.half), p.rotation);
      for (size_t i = 0; i < sums.size(); i++) put(p.c, dtype, i, sums[i]);
    }
  });
}

bool has_scales(const Product* products, int count) {
  bool any = false;
  for (int q = 0; q < count; q++)
    for (int s = 0; s < products[q].segments; s++) any = any || products[q].segment[s].b_scale;
  return any;
}
}  // namespace

int gemm_segmented(int dtype, bool b_by_k, size_t M, const Product* products, int count) {
  limit(!has_scales(products, count), "an 8-bit segment in a launch of 16-bit ones");
  return segmented(dtype, b_by_k, M, products, count);
}
int gemm_fp8(int dtype, bool b_by_k, size_t M, const Product* products, int count) {
  limit(has_scales(products, count), "a launch for 8-bit segments without one");
  return segmented(dtype, b_by_k, M, products, count);
}

}  // namespace us
