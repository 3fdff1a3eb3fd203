// The kernels as seen by cuda/host, on the CPU, in whole numbers: a 16-bit element is a number modulo 2^16, an f32 one modulo
// 2^32, a factor the whole number nearest; f16 stores three times its number, so that it is not bf16. Rounding a sum once or at each addition is then the same to the bit, so products
// that waited and joined must give exactly what they give one by one, and every bit that went wrong shows. The thresholds on
// sizes are smaller than the real kernels'. Each launch also asserts what makes it one launch: nothing that one part of it
// writes is read or written by another.
#include <string.h>

#include "../../../cuda/host/kernels.h"
#include "../../../cuda/host/pending.h"
#include "../../../cuda/kernels/fp8.h"
#include "../../../cuda/kernels/gemm.h"
#include "../../../cuda/kernels/gemm_sm90.h"
#include "../../../cuda/kernels/low_rank.h"
#include "fake.h"

namespace us {
namespace {

size_t width(int dtype) {  // bits
  return dtype == F32 || dtype == I32 ? 32 : dtype == BF16 || dtype == F16 ? 16 : us_bytes(static_cast<uint32_t>(dtype), 256) * 8 / 256;
}

/** Element i of any type as a whole number; of a packed type the byte it lies in. */
uint32_t at(const void* p, int dtype, size_t i) {
  const char* c = static_cast<const char*>(p);
  uint32_t x = 0;
  if (width(dtype) == 32 || width(dtype) == 16) memcpy(&x, c + i * width(dtype) / 8, width(dtype) / 8);
  else memcpy(&x, c + i * width(dtype) / 8, 1);
  return dtype == F16 ? x * 43691 & 0xffff : x;  // 3 * 43691 = 1 modulo 2^16
}
void put(void* p, int dtype, size_t i, uint32_t x) {
  if (dtype == F16) x *= 3;
  memcpy(static_cast<char*>(p) + i * width(dtype) / 8, &x, width(dtype) / 8);
}
uint32_t whole(float x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }

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
void limit(bool ok, const char* rule) {
  if (!ok) fake::broken(rule);
}
int run(const char* name, std::function<void()> kernel) { return fake::launch(stream(), std::move(kernel)), launched(name); }

/** A matrix of a product as whole numbers, [rows, K] with K along a row; `by_k`: it is stored [K, rows]. */
struct Matrix {
  size_t K;
  std::vector<uint32_t> x;
  Matrix(const void* p, int dtype, bool by_k, size_t rows, size_t K) : K(K), x(rows * K) {
    for (size_t r = 0; r < rows; r++)
      for (size_t k = 0; k < K; k++) x[r * K + k] = at(p, dtype, by_k ? k * rows + r : r * K + k);
  }
};
uint32_t dot(const Matrix& a, size_t m, const Matrix& b, size_t n) {
  uint32_t sum = 0;
  for (size_t k = 0; k < a.K; k++) sum += a.x[m * a.K + k] * b.x[n * a.K + k];
  return sum;
}

/** The weight of a segment: 8-bit values lie as [N,K] whatever the layout of the others. */
Matrix weight_of(const Segment& s, int dtype, bool b_by_k, size_t N) {
  return s.b_scale ? Matrix(s.b, U8, false, N, s.K) : Matrix(s.b, dtype, b_by_k, N, s.K);
}

int product(const Gemm& g) {
  return run("matmul", [g] {
    const Matrix a(g.a, g.a_type, g.trans_a, g.M, g.K);
    const Matrix b = g.b_type == FP8_128 ? weight_of(fp8_segment(g), g.a_type, false, g.N) : Matrix(g.b, g.b_type, !g.trans_b, g.N, g.K);
    for (size_t m = 0; m < g.M; m++)
      for (size_t n = 0; n < g.N; n++) {
        const size_t i = m * g.ldc + n;
        uint32_t x = whole(g.alpha) * dot(a, m, b, n);
        if (g.beta != 0) x += whole(g.beta) * at(g.c, g.c_type, i);
        if (g.bias) x += at(g.bias, g.bias_type, n);
        put(g.c, g.c_type, i, x);
      }
  });
}

bool is_rank(size_t r) { return r % 8 == 0 && r > 0 && r <= 64; }
template <class... P> bool aligned16(P... p) { return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...); }

void touch(Launch& l, const Thin& t, int b_type, size_t M, int i) {
  l.read(t.a, M * t.K * 2);
  for (int j = 0; j < t.count; j++) {
    const size_t bytes = M * static_cast<size_t>(t.r) * 2;
    l.read(t.b[j], t.K * static_cast<size_t>(t.r) * width(b_type) / 8);
    if (t.beta != 0) l.read(t.c[j], bytes, i * MAX_SHARING + j);
    l.write(t.c[j], bytes, i * MAX_SHARING + j), l.write(t.copy[j], bytes);
  }
}
void multiply(const Thin& t, int dtype, int b_type, bool by_k, size_t M) {
  for (int j = 0; j < t.count; j++) {
    const size_t r = static_cast<size_t>(t.r);
    const Matrix a(t.a, dtype, false, M, t.K), b(t.b[j], b_type, by_k, r, t.K);
    for (size_t i = 0; i < M * r; i++) {
      uint32_t x = whole(t.alpha[j]) * dot(a, i / r, b, i % r);
      if (t.beta != 0) x += whole(t.beta) * at(t.c[j], dtype, i);
      if (t.c[j]) put(t.c[j], dtype, i, x);
      if (t.copy[j]) put(t.copy[j], dtype, i, x);
    }
  }
}
void touch(Launch& l, const Tall& t, size_t N) {
  l.read(t.wide, N * t.W * 2);
  for (int j = 0; j < t.count; j++) {
    l.read(t.thin[j], N * static_cast<size_t>(t.r) * 2);
    l.write(t.out[j], t.W * static_cast<size_t>(t.r) * 4);
  }
}
void multiply(const Tall& t, int dtype, size_t N) {
  for (int j = 0; j < t.count; j++) {
    const size_t r = static_cast<size_t>(t.r);
    const Matrix wide(t.wide, dtype, true, t.W, N), narrow(t.thin[j], dtype, true, r, N);
    for (size_t w = 0; w < t.W; w++)
      for (size_t c = 0; c < r; c++) {
        const size_t i = t.by_rank ? c * t.W + w : w * r + c;
        put(t.out[j], F32, i, at(t.out[j], F32, i) + whole(t.alpha[j]) * dot(wide, w, narrow, c));
      }
  }
}

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
  t.a = g.a, t.b[0] = g.b, t.c[0] = g.c, t.alpha[0] = g.alpha, t.K = g.K;
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
bool thin_fits_sm90(const Thin& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.beta == 0.0f && t.K >= 72; }
bool tall_fits_sm90(const Tall& t) { return has_sm90() && (t.r == 16 || t.r == 32 || t.r == 64) && t.W >= 72; }
int run_thin(int dtype, bool by_k, size_t M, const Thin* l, int n) { return thin("thin products", dtype, F32, by_k, M, l, n); }
int run_thin_sm90(int dtype, bool by_k, size_t M, const Thin* l, int n) { return thin("thin products", dtype, dtype, by_k, M, l, n); }
int run_tall(int dtype, size_t N, const Tall* l, int n) { return tall("tall products", false, dtype, N, l, n); }
int run_tall_sm90(int dtype, size_t N, const Tall* l, int n) { return tall("tall products", true, dtype, N, l, n); }

namespace {
void touch(Launch& l, const Cast* casts, int count) {
  limit(count <= MAX_CASTS, "too many casts in a launch");
  for (int i = 0; i < count; i++) {
    limit(casts[i].count % 8 == 0, "a cast of no multiple of eight");
    l.read(casts[i].from, casts[i].count * 4), l.write(casts[i].to, casts[i].count * 2);
  }
}
void round(const Cast& c, int dtype) {
  for (size_t i = 0; i < c.count; i++) put(c.to, dtype, i, whole(c.factor) * at(c.from, F32, i));
}
}  // namespace

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
void copy_rows(const void* from, uint8_t* to, float* scale, size_t M, size_t K) {
  memmove(to, from, M * K * 2);
  for (size_t m = 0; m < M; m++) put(scale, F32, m, 1);
}
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

int run_wide_sm90(int dtype, bool by_k, size_t M, const Wide* list, int count, const Cast* casts, int cast_count) {
  limit(count >= 1 && count <= MAX_THIN, "too many passes in a launch");
  Launch l;
  for (int i = 0; i < count; i++) {
    const Wide& w = list[i];
    limit(w.r == w.thin.r && w.count == w.thin.count && w.count == list[0].count, "passes of other shapes");
    limit(wide_fits_sm90(w.thin, w.count), "a pass that does not fit");
    limit(!w.tall.wide == !list[0].tall.wide && !w.to8 == !list[0].to8, "passes that give different things");
    touch(l, w.thin, F32, M, i);
    if (w.tall.wide) {
      limit(w.tall.wide == w.thin.a && w.tall.W == w.thin.K && w.tall.r == w.thin.r, "another matrix's gradient");
      limit(w.tall.count == 1 && w.count == 1, "a gradient beside products that share");
      touch(l, w.tall, M);
    }
    if (w.to8) touch(l, w.thin.a, w.to8, w.scale8, M, w.thin.K);
  }
  touch(l, casts, cast_count);
  l.check();
  std::vector<Wide> all(list, list + count);
  std::vector<Cast> also(casts, casts + cast_count);
  return run("wide", [=] {
    for (const Cast& c : also) round(c, dtype);
    for (const Wide& w : all) {
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
        put(p.c, dtype, i, sums[i]);
      }
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

// As cuda/kernels/matmul.cu orders it: held back, or after what it meets.
int matmul(const Ten& c, const Ten& a, const Ten& b, const Ten& bias, bool trans_a, bool trans_b, float alpha, float beta) {
  Gemm g{a.p, b.p, bias.p, c.p, c.rows, c.cols, trans_a ? a.rows : a.cols, trans_a, trans_b,
         a.dtype, b.dtype, c.dtype, bias.dtype, alpha, beta, c.cols};
  if (a.dtype > F16 || c.dtype > F16) return unsupported("activations of element type", a.dtype > F16 ? a.dtype : c.dtype);
  if (g.M == 0 || g.N == 0) return US_OK;
  int rc;
  if (defer_product(g, rc)) return rc;
  const Span reads[] = {span_of(a), span_of(b), span_of(bias)}, writes[] = {span_of(c)};
  if ((rc = settle(reads, 3, writes, 1))) return rc;
  return product(g);
}

}  // namespace us
