#include "pending.h"

#include <vector>

#include "../kernels/fp8.h"
#include "../kernels/gemm_sm90.h"
#include "../kernels/low_rank.h"
#include "state.h"

namespace us {

namespace {

/** Thin results and 16-bit adapters live here until their products have been launched; then the stream's order keeps them. */
constexpr size_t RING = size_t{64} << 20;

/** A thin result and its copy in the ring. */
struct Shadow { Span of; const void* copy; };

struct Pending {
  std::vector<Thin> thins;
  std::vector<Product> products;
  std::vector<Tall> talls;
  std::vector<Cast> casts;
  std::vector<Span> reads, writes;
  std::vector<Shadow> shadows;
  size_t rows = 0;  // M of thins and products, N of talls: all waiting have it
  int dtype = 0, segments = 0;
  bool thin_by_k = false, b_by_k = false, e4m3 = false;  // e4m3: products with an 8-bit weight
  size_t ring_at = 0;
  bool empty() const { return thins.empty() && products.empty() && talls.empty(); }
};
Pending& pending() {
  static Pending p;
  return p;
}

bool same(Span a, Span b) { return a.p == b.p && a.bytes == b.bytes; }
bool meet(Span a, Span b) { return a.bytes && b.bytes && a.p < b.p + b.bytes && b.p < a.p + a.bytes; }
bool any(const std::vector<Span>& list, Span s) {
  for (const Span& x : list)
    if (meet(x, s)) return true;
  return false;
}
bool is_read(Span s) { return any(pending().reads, s); }
bool is_written(Span s) { return any(pending().writes, s); }

void forget_shadows(Span written) {
  std::vector<Shadow>& s = pending().shadows;
  for (size_t i = s.size(); i-- > 0;)
    if (meet(s[i].of, written)) s.erase(s.begin() + static_cast<long>(i));
}
const void* shadow_of(Span result) {
  for (const Shadow& s : pending().shadows)
    if (same(s.of, result)) return s.copy;
  return nullptr;
}

/** Room in the ring; null with rc 0 when it is too small. When the ring begins again, what points into it is launched. */
void* ring(size_t bytes, int& rc) {
  Pending& p = pending();
  rc = US_OK;
  bytes = (bytes + 255) / 256 * 256;
  if (bytes > RING / 16) return nullptr;
  if (p.ring_at + bytes > RING) {
    if ((rc = flush_pending())) return nullptr;
    p.shadows.clear(), p.ring_at = 0;
  }
  char* base = static_cast<char*>(scratch(SCRATCH_RING, RING));
  if (!base) return rc = US_MEMORY, nullptr;
  p.ring_at += bytes;
  return base + p.ring_at - bytes;
}

size_t width(int dtype) { return us_bytes(static_cast<uint32_t>(dtype), 1); }
Span a_of(const Gemm& g) { return {static_cast<const char*>(g.a), g.M * g.K * width(g.a_type)}; }
Span b_of(const Gemm& g) { return {static_cast<const char*>(g.b), us_bytes(static_cast<uint32_t>(g.b_type), g.N * g.K)}; }
Span c_of(const Gemm& g) { return {static_cast<const char*>(g.c), g.M * g.N * width(g.c_type)}; }

/** Launches what waits unless it has these rows and this type. */
int admit(size_t rows, int dtype) {
  Pending& p = pending();
  if (!p.empty() && (p.rows != rows || p.dtype != dtype))
    if (const int rc = flush_pending()) return rc;
  p.rows = rows, p.dtype = dtype;
  return US_OK;
}

Product* waiting_for(const Gemm& g) {
  Pending& p = pending();
  if (p.rows != g.M || p.dtype != g.c_type || p.b_by_k != !g.trans_b) return nullptr;
  for (Product& x : p.products)
    if (x.c == g.c && x.N == g.N) return &x;
  return nullptr;
}

/** += a b with a 16-bit and b an f32 adapter joins the product that writes c. */
bool join_low_rank(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (!waiting_for(g) || g.beta != 1.0f || g.bias || p.segments == MAX_SEGMENTS || g.K > 256) return false;
  if (!fits_sm90(g.M, g.N, {g.a, g.b, g.K}, p.b_by_k) || is_written(b_of(g))) return false;
  if (!shadow_of(a_of(g)) && is_written(a_of(g))) return false;
  void* b = ring(g.N * g.K * 2, rc);
  if (rc) return true;
  Product* x = waiting_for(g);
  if (!b || !x) return false;  // the ring began again, and with it everything was launched
  const void* a = shadow_of(a_of(g));
  if (!a) a = g.a, p.reads.push_back(a_of(g));
  p.reads.push_back(b_of(g));
  p.casts.push_back({static_cast<const float*>(g.b), b, g.N * g.K, g.alpha});
  x->segment[x->segments++] = {a, b, g.K}, p.segments++;
  return true;
}

/** A product with a 16-bit weight joins the one that writes c, or waits beside those of the same layout. */
bool wait_or_join(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (g.alpha != 1.0f || g.K < 64 || !fits_sm90(g.M, g.N, {g.a, g.b, g.K}, !g.trans_b)) return false;
  if ((rc = admit(g.M, g.c_type))) return true;
  const Span bias{static_cast<const char*>(g.bias), g.bias ? g.N * width(g.bias_type) : 0};
  Product* x = g.beta == 1.0f && !g.bias ? waiting_for(g) : nullptr;
  const bool e4m3 = g.b_type == FP8_128, alike = p.products.empty() || (p.b_by_k == !g.trans_b && p.e4m3 == e4m3);
  const bool room = p.segments < MAX_SEGMENTS && (x || p.products.size() < MAX_PRODUCTS);
  if (!alike || !room || is_written(a_of(g)) || is_written(b_of(g)) || is_written(bias) || is_read(c_of(g)) ||
      (!x && is_written(c_of(g)))) {
    if ((rc = flush_pending())) return true;
    x = nullptr;
  }
  forget_shadows(c_of(g));
  if (!x) {
    p.b_by_k = !g.trans_b, p.e4m3 = e4m3;
    p.products.push_back({g.c, g.bias, g.bias_type, g.N, 1.0f, g.beta == 1.0f ? g.c : nullptr, 0, {}});
    p.writes.push_back(c_of(g));
    x = &p.products.back();
  }
  x->segment[x->segments++] = e4m3 ? fp8_segment(g) : Segment{g.a, g.b, g.K}, p.segments++;
  for (const Span& s : {a_of(g), b_of(g), bias}) p.reads.push_back(s);
  return true;
}

/** An earlier thin result of the same place will never be read there: only its shadow is written. */
bool supersede(Span c) {
  Pending& p = pending();
  for (Thin& t : p.thins)
    for (int i = 0; i < t.count; i++)
      if (t.c[i] == c.p && t.copy[i]) {
        for (size_t w = 0; w < p.writes.size(); w++)
          if (same(p.writes[w], c)) {
            p.writes.erase(p.writes.begin() + static_cast<long>(w));
            t.c[i] = nullptr;
            return !is_written(c);
          }
      }
  return false;
}

/** x A^T or dy B waits, its result to be written to its place and to a shadow. */
bool wait_thin(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (!is_thin(g) || g.beta != 0.0f) return false;
  const Thin alone = thin_of(g);
  const bool wide = wide_fits_sm90(alone, 1), small = !wide && thin_fits_sm90(alone);  // small: b is wanted in 16 bits
  if (p.casts.size() + 1 + MAX_SEGMENTS > MAX_CASTS)
    if ((rc = flush_pending())) return true;
  void* b16 = small ? ring(g.N * g.K * 2, rc) : nullptr;
  if (rc || (small && !b16)) return rc != US_OK;
  void* copy = ring(c_of(g).bytes, rc);
  if (rc || !copy) return rc != US_OK;
  if (small && copy < b16) b16 = ring(g.N * g.K * 2, rc);  // the ring began again in between: so does this
  if ((rc = admit(g.M, g.c_type))) return true;
  const bool alike = p.thins.empty() || p.thin_by_k == !g.trans_b;
  if (!alike || is_written(a_of(g)) || is_written(b_of(g)) || is_read(c_of(g)) || (is_written(c_of(g)) && !supersede(c_of(g))))
    if ((rc = flush_pending())) return true;
  Thin* with = nullptr;
  for (Thin& t : p.thins)
    if (t.a == g.a && t.K == g.K && t.r == static_cast<int>(g.N) && t.count < MAX_SHARING && (t.count + 1) * t.r <= 64 &&
        wide_fits_sm90(t, t.count + 1) == wide)
      with = &t;
  if (!with && p.thins.size() == MAX_THIN)
    if ((rc = flush_pending())) return true;
  forget_shadows(c_of(g));
  Thin one = alone;
  one.copy[0] = copy;
  if (b16) one.b[0] = b16, p.casts.push_back({static_cast<const float*>(g.b), b16, g.N * g.K, 1.0f});
  if (with) {
    const int i = with->count++;
    with->b[i] = one.b[0], with->c[i] = one.c[0], with->copy[i] = copy, with->alpha[i] = one.alpha[0];
  } else {
    p.thin_by_k = !g.trans_b, p.thins.push_back(one);
  }
  p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));
  p.shadows.push_back({c_of(g), copy});
  return true;
}

/** dA or dB waits. */
bool wait_tall(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (!is_tall(g)) return false;
  Tall t = tall_of(g);
  const Span thin = t.by_rank ? a_of(g) : b_of(g), wide = t.by_rank ? b_of(g) : a_of(g);
  if ((rc = admit(g.K, g.a_type))) return true;
  if (is_written(wide) || is_written(c_of(g)) || is_read(c_of(g)) || (!shadow_of(thin) && is_written(thin)))
    if ((rc = flush_pending())) return true;
  if (const void* copy = shadow_of(thin)) t.thin[0] = copy;
  else p.reads.push_back(thin);
  p.reads.push_back(wide), p.writes.push_back(c_of(g));
  forget_shadows(c_of(g));
  for (Tall& w : p.talls)
    if (w.wide == t.wide && w.W == t.W && w.r == t.r && w.by_rank == t.by_rank && w.count < MAX_SHARING && (w.count + 1) * w.r <= 64) {
      w.thin[w.count] = t.thin[0], w.out[w.count] = t.out[0], w.alpha[w.count] = t.alpha[0], w.count++;
      return true;
    }
  p.talls.push_back(t);
  return p.talls.size() < MAX_TALL || (rc = flush_pending(), true);
}

/** Calls run(list, count, kind) with those of one rank, number of thin sides and kind at a time. */
template <class X, class Kind, class Run> int by_shape(std::vector<X> left, Kind kind_of, Run run) {
  while (!left.empty()) {
    X now[MAX_TALL];
    int count = 0;
    const int r = left[0].r, n = left[0].count, kind = kind_of(left[0]);
    for (size_t i = 0; i < left.size();) {
      if (left[i].r == r && left[i].count == n && kind_of(left[i]) == kind) now[count++] = left[i], left.erase(left.begin() + static_cast<long>(i));
      else i++;
    }
    if (const int rc = run(now, count, kind)) return rc;
  }
  return US_OK;
}

/** The gradient that reads t.a too goes with it, unless its thin side is made in the same flush. */
void take_tall(const Thin& t, std::vector<Tall>& talls, const std::vector<const void*>& made, Tall& taken) {
  for (size_t i = 0; i < talls.size(); i++) {
    const Tall& x = talls[i];
    bool ready = true;
    for (const void* m : made) ready = ready && x.thin[0] != m;
    if (t.count != 1 || x.count != 1 || x.wide != t.a || x.W != t.K || x.r != t.r || !ready) continue;
    taken = x;
    talls.erase(talls.begin() + static_cast<long>(i));
    return;
  }
}

/** Takes the thin products that run as passes over their matrices, with what else these passes can give. */
std::vector<Wide> take_wide(Pending& p, Rounded* rounded, int rounded_count) {
  std::vector<Wide> all;
  std::vector<const void*> made;
  for (const Thin& t : p.thins) made.insert(made.end(), t.copy, t.copy + t.count);
  for (size_t i = 0; i < p.thins.size();) {
    const Thin& t = p.thins[i];
    if (!wide_fits_sm90(t, t.count)) {
      i++;
      continue;
    }
    Wide w{t, {}, nullptr, nullptr, t.r, t.count};
    take_tall(t, p.talls, made, w.tall);
    for (int j = 0; j < rounded_count; j++) {
      Rounded& x = rounded[j];
      if (x.from == t.a && x.K == t.K && !x.done) w.to8 = x.to, w.scale8 = x.scale, x.done = true;
    }
    all.push_back(w), p.thins.erase(p.thins.begin() + static_cast<long>(i));
  }
  return all;
}

/** Thin products, passes over wide matrices, adapters in 16 bits: all that the products read. */
int run_thins(Pending& p, Rounded* rounded, int rounded_count) {
  int rc = by_shape<Wide>(take_wide(p, rounded, rounded_count), [](const Wide& w) { return (w.tall.wide ? 1 : 0) + (w.to8 ? 2 : 0); },
                          [&](const Wide* list, int count, int) {
                            std::vector<Cast> casts;
                            casts.swap(p.casts);  // the first launch takes them along
                            return run_wide_sm90(p.dtype, p.thin_by_k, p.rows, list, count, casts.data(), static_cast<int>(casts.size()));
                          });
  if (!rc && !p.casts.empty()) rc = cast_adapters(p.dtype, p.casts.data(), static_cast<int>(p.casts.size()));
  if (rc) return rc;
  return by_shape<Thin>(p.thins, thin_fits_sm90, [&](const Thin* list, int count, bool fits) {
    return fits ? run_thin_sm90(p.dtype, p.thin_by_k, p.rows, list, count)
                : run_thin(p.dtype, p.thin_by_k, p.rows, list, count);
  });
}

}  // namespace

int flush_pending() {
  if (pending().empty()) return US_OK;
  Pending p;
  {
    Pending& all = pending();
    p.thins.swap(all.thins), p.products.swap(all.products), p.talls.swap(all.talls), p.casts.swap(all.casts);
    p.rows = all.rows, p.dtype = all.dtype, p.thin_by_k = all.thin_by_k, p.b_by_k = all.b_by_k, p.e4m3 = all.e4m3;
    all.reads.clear(), all.writes.clear(), all.segments = 0;
  }
  const int products = static_cast<int>(p.products.size());
  Rounded rounded[MAX_SEGMENTS];
  int rc = US_OK, n = 0;
  if (products && p.e4m3) rc = place_rounded(p.rows, p.products.data(), products, rounded, n);
  if (!rc) rc = run_thins(p, rounded, n);
  if (!rc && n > 0) rc = round_inputs(p.dtype, p.rows, rounded, n);
  if (!rc && products) {
    rc = p.e4m3 ? gemm_fp8(p.dtype, p.b_by_k, p.rows, p.products.data(), products)
                : gemm_segmented(p.dtype, p.b_by_k, p.rows, p.products.data(), products);
  }
  if (!rc) {
    rc = by_shape<Tall>(p.talls, tall_fits_sm90, [&](const Tall* list, int count, bool fits) {
      return fits ? run_tall_sm90(p.dtype, p.rows, list, count) : run_tall(p.dtype, p.rows, list, count);
    });
  }
  return rc;
}

void drop_pending() { pending() = Pending(); }

int settle(const Span* reads, int read_count, const Span* writes, int write_count) {
  bool touched = false;
  for (int i = 0; i < read_count; i++) touched = touched || is_written(reads[i]);
  for (int i = 0; i < write_count; i++) {
    touched = touched || is_written(writes[i]) || is_read(writes[i]);
    forget_shadows(writes[i]);
  }
  return touched ? flush_pending() : US_OK;
}

bool defer_product(const Gemm& g, int& rc) {
  rc = US_OK;
  if (g.a_type == F32 || g.ldc != g.N || !has_sm90()) return false;
  Pending& p = pending();
  if (p.empty() && p.ring_at > RING / 2) p.shadows.clear(), p.ring_at = 0;  // before company gathers, not in the middle
  if (g.trans_a) return wait_tall(g, rc);
  if (g.c_type != g.a_type || reinterpret_cast<uintptr_t>(g.c) % 16) return false;
  if (g.b_type == F32) return join_low_rank(g, rc) || (rc == US_OK && wait_thin(g, rc));
  return (g.b_type == g.a_type || g.b_type == FP8_128) && wait_or_join(g, rc);
}

bool defer_add(const Ten& out, const Ten& x) {
  if (pending().dtype != out.dtype || reinterpret_cast<uintptr_t>(x.p) % 16) return false;
  for (Product& p : pending().products) {
    if (p.c != out.p || pending().rows * p.N * 2 != out.bytes || p.addend || is_written(span_of(x))) continue;
    p.addend = x.p;
    pending().reads.push_back(span_of(x));
    return true;
  }
  return false;
}

}  // namespace us
