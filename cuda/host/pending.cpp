#include "../kernels/fp8.h"
#include "../kernels/gemm_sm90.h"
#include "pending_state.h"

namespace us {

namespace {

size_t width(int dtype) { return us_bytes(static_cast<uint32_t>(dtype), 1); }
Span a_of(const Gemm& g) { return {static_cast<const char*>(g.a), g.M * g.K * width(g.a_type)}; }
Span b_of(const Gemm& g) { return {static_cast<const char*>(g.b), us_bytes(static_cast<uint32_t>(g.b_type), g.N * g.K)}; }
Span c_of(const Gemm& g) { return {static_cast<const char*>(g.c), g.M * g.N * width(g.c_type)}; }

Product* waiting_for(const Gemm& g) {
  Pending& p = pending();
  if (p.rows != g.M || p.dtype != g.c_type || p.b_by_k != !g.trans_b) return nullptr;
  for (Product& x : p.products)
    if (x.c == g.c && x.N == g.N && !x.rotation.table) return &x;
  return nullptr;
}

/** += a b with a 16-bit and b an f32 adapter joins the product that writes c. */
bool join_low_rank(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (!waiting_for(g) || g.beta != 1.0f || g.bias || p.segments == MAX_SEGMENTS || g.K > 256) return false;
  if (!fits_sm90(g.M, g.N, {g.a, g.b, g.K}, p.b_by_k) || is_written(b_of(g)) || is_made_first(b_of(g))) return false;
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
  const bool made = is_made_first(b_of(g));  // the launch that makes it may take this product along
  if (!alike || made || is_written(a_of(g)) || is_written(b_of(g)) || is_read(c_of(g)) || (is_written(c_of(g)) && !supersede(c_of(g))))
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
    with->b[i] = one.b[0], with->given[i] = one.given[0], with->c[i] = one.c[0], with->copy[i] = copy, with->alpha[i] = one.alpha[0];
  } else {
    p.thin_by_k = !g.trans_b, p.thins.push_back(one);
  }
  p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));
  p.shadows.push_back({c_of(g), copy});
  return true;
}

/**
 * dA over a norm that waits reads the norm's input instead, if its thin side waits too and can be written once more, times
 * rstd, to `room`. In bf16 only: f16 has no range for it.
 */
bool read_input(Tall& t, void* room) {
  Pending& p = pending();
  if (!room || !p.renorm.held() || p.dtype != BF16 || !tall_fits_sm90(t)) return false;
  for (Thin& x : p.thins)
    for (int i = 0; i < x.count; i++) {
      if (x.copy[i] != t.thin[0] || x.scaled[i] || !thin_scales(x)) continue;
      const Renorm& n = p.renorm;
      x.scaled[i] = room, x.stat = n.stat.as<float>();
      t.wide = n.x.p, t.thin[0] = room, t.columns = {n.w.p, n.w.dtype, n.plus_one ? 1.0f : 0.0f};
      return true;
    }
  return false;
}

/** dA or dB waits. */
bool wait_tall(const Gemm& g, int& rc) {
  Pending& p = pending();
  if (!is_tall(g)) return false;
  Tall t = tall_of(g);
  const Span thin = t.by_rank ? a_of(g) : b_of(g), wide = t.by_rank ? b_of(g) : a_of(g);
  const bool normed = t.by_rank && p.renorm.held() && same(wide, span_of(p.renorm.out));
  void* room = normed ? ring(thin.bytes, rc) : nullptr;
  if ((normed && rc) || (rc = admit(g.K, g.a_type))) return true;
  if (is_written(wide) || is_written(c_of(g)) || is_read(c_of(g)) || (!shadow_of(thin) && (is_written(thin) || is_made_first(thin))))
    if ((rc = flush_pending())) return true;
  if (const void* copy = shadow_of(thin)) t.thin[0] = copy;
  else p.reads.push_back(thin);
  if (!read_input(t, room)) p.reads.push_back(wide);
  p.writes.push_back(c_of(g));
  forget_shadows(c_of(g));
  for (Tall& w : p.talls)
    if (w.wide == t.wide && w.columns.p == t.columns.p && w.W == t.W && w.r == t.r && w.by_rank == t.by_rank &&
        w.count < MAX_SHARING && (w.count + 1) * w.r <= 64) {
      w.thin[w.count] = t.thin[0], w.out[w.count] = t.out[0], w.alpha[w.count] = t.alpha[0], w.count++;
      return true;
    }
  p.talls.push_back(t);
  return p.talls.size() < MAX_TALL || (rc = flush_pending(), true);
}

}  // namespace

int admit(size_t rows, int dtype) {
  Pending& p = pending();
  if (!p.empty() && (p.rows != rows || p.dtype != dtype))
    if (const int rc = flush_pending()) return rc;
  p.rows = rows, p.dtype = dtype;
  return US_OK;
}

bool defer_product(const Gemm& g, int& rc) {
  rc = US_OK;
  if (g.a_type == F32 || g.ldc != g.N || !has_sm90()) return false;
  if ((rc = launch_attention_bwd())) return true;
  tidy_ring();
  if (g.trans_a) return wait_tall(g, rc);
  if (g.c_type != g.a_type || reinterpret_cast<uintptr_t>(g.c) % 16) return false;
  if (g.b_type == F32) return join_low_rank(g, rc) || (rc == US_OK && wait_thin(g, rc));
  return (g.b_type == g.a_type || g.b_type == FP8_128) && wait_or_join(g, rc);
}

bool defer_glu(const Ten& h, const Ten& dh, const Ten& gate, const Ten& up, const Ten& d_gate, const Ten& d_up, int act, int& rc) {
  rc = US_OK;
  if (h.dtype == F32 || !up || !has_sm90() || (dh && !d_up)) return false;
  tidy_ring();
  if ((pending().glu.held() || pending().norm.held()) && (rc = flush_pending())) return true;
  if ((rc = admit(h.rows, h.dtype))) return true;
  Pending& p = pending();
  p.glu = {h, dh, gate, up, d_gate, d_up, act, false, false, false};
  for (const Ten* t : {&dh, &gate, &up})
    if (*t) p.reads.push_back(span_of(*t));
  return true;
}

bool defer_renorm(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, bool plus_one, int& rc) {
  rc = US_OK;
  if (out.dtype != BF16 || b || !has_sm90()) return false;
  tidy_ring();
  if (pending().renorm.held() && (rc = flush_pending())) return true;
  if ((rc = admit(out.rows, out.dtype))) return true;
  Pending& p = pending();
  p.renorm = {out, x, stat, w, plus_one, false};
  for (const Ten* t : {&x, &stat, &w}) p.reads.push_back(span_of(*t));
  return true;
}

void forget(Span x) {
  Glu& g = pending().glu;
  Renorm& n = pending().renorm;
  if (g.held() && same(x, span_of(g.h))) g.h_forgotten = true;
  if (g.held() && g.dh && same(x, span_of(g.d_gate))) g.d_gate_forgotten = true;
  if (g.held() && g.dh && same(x, span_of(g.d_up))) g.d_up_forgotten = true;
  if (n.held() && same(x, span_of(n.out))) n.forgotten = true;
}

bool defer_add(const Ten& out, const Ten& x) {
  if (pending().dtype != out.dtype || reinterpret_cast<uintptr_t>(x.p) % 16) return false;
  for (Product& p : pending().products) {
    if (p.c != out.p || pending().rows * p.N * 2 != out.bytes || p.addend || p.rotation.table || is_written(span_of(x))) continue;
    p.addend = x.p;
    pending().reads.push_back(span_of(x));
    return true;
  }
  return false;
}

}  // namespace us
