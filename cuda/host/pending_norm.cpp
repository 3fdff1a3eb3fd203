// An RMS norm that waits for the thin products over its result. It runs at the head of what waits; where a pass over its result
// would read it again for adapters (q, k, v; gate, up), that pass makes it.
#include "../kernels/fp8.h"
#include "kernels.h"
#include "pending_state.h"

namespace us {

namespace {

/** Whether the pass with these products may make the norm. What they write may lie where stat does, and then it comes after. */
bool can_make(const Pending& p, const Thin& t) {
  const Norm& h = p.norm;
  bool can = t.a == h.out.p && t.K == h.x.cols && wide_fits_sm90(t, t.count) && wide_norm_fits_sm90(t.K, t.count);
  for (int i = 0; i < t.count; i++) {
    const Span c{static_cast<const char*>(t.c[i]), t.c[i] ? p.rows * static_cast<size_t>(t.r) * 2 : 0};
    can = can && !meet(c, span_of(h.stat));
  }
  return can;
}

}  // namespace

bool defer_norm(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, const Ten& b, int kind, float eps, bool plus_one, int& rc) {
  rc = US_OK;
  if (kind != US_RMS || b || (x.dtype != BF16 && x.dtype != F16) || !wide_norm_fits_sm90(x.cols, 1)) return false;
  if (out.bytes != x.bytes || stat.dtype != F32 || stat.numel != 2 * x.rows || w.numel != x.cols) return false;
  for (const Ten* t : {&x, &w})
    if (reinterpret_cast<uintptr_t>(t->p) % 16 || meet(span_of(out), span_of(*t)) || meet(span_of(stat), span_of(*t))) return false;
  if (meet(span_of(out), span_of(stat))) return false;
  tidy_ring();
  if ((pending().glu.held() || pending().norm.held()) && (rc = flush_pending())) return true;
  if ((rc = admit(x.rows, x.dtype))) return true;
  Pending& p = pending();
  p.norm = {out, stat, x, w, eps, plus_one};
  p.reads.push_back(span_of(x)), p.reads.push_back(span_of(w));
  return true;
}

int run_norm(Pending& p, Rounded* rounded, int rounded_count) {
  const Norm& h = p.norm;
  for (size_t i = 0; i < p.thins.size(); i++) {
    if (!can_make(p, p.thins[i])) continue;
    const Thin t = p.thins[i];
    p.thins.erase(p.thins.begin() + static_cast<long>(i));
    Wide w{t, {}, nullptr, nullptr, t.r, t.count, {h.x.p, h.w.p, h.out.p, h.stat.as<float>(), h.w.dtype, h.eps, h.plus_one}};
    if (Rounded* x = rounded_of(t.a, t.K, rounded, rounded_count)) w.to8 = x->to, w.scale8 = x->scale, x->done = true;
    std::vector<Cast> casts;
    casts.swap(p.casts);  // this launch takes them along
    return run_wide_sm90(p.dtype, p.thin_by_k, p.rows, &w, 1, casts.data(), static_cast<int>(casts.size()));
  }
  return norm(h.out, h.stat, h.x, h.w, Ten(), US_RMS, h.eps, h.plus_one);
}

}  // namespace us
