// Launches what waits: attention's backward, a norm, an activation, then what the large products read, these, and the parameters'
// gradients.
#include <algorithm>

#include "../kernels/fp8.h"
#include "../kernels/gemm_sm90.h"
#include "../kernels/glu_sm90.h"
#include "kernels.h"
#include "pending_state.h"

namespace us {

Rounded* rounded_of(const void* from, size_t K, Rounded* rounded, int count) {
  for (int j = 0; j < count; j++)
    if (rounded[j].from == from && rounded[j].K == K && !rounded[j].done) return &rounded[j];
  return nullptr;
}

namespace {

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
  for (const Thin& t : p.thins) made.insert(made.end(), t.copy, t.copy + t.count), made.insert(made.end(), t.scaled, t.scaled + t.count);
  for (size_t i = 0; i < p.thins.size();) {
    const Thin& t = p.thins[i];
    if (!wide_fits_sm90(t, t.count)) {
      i++;
      continue;
    }
    Wide w{t, {}, nullptr, nullptr, t.r, t.count, {}};
    take_tall(t, p.talls, made, w.tall);
    if (Rounded* x = rounded_of(t.a, t.K, rounded, rounded_count)) w.to8 = x->to, w.scale8 = x->scale, x->done = true;
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

/** The thin product over x [M,F] alone; or null. */
Thin* thin_over(Pending& p, const Ten& x) {
  for (Thin& t : p.thins)
    if (t.a == x.p && t.K == x.cols) return &t;
  return nullptr;
}

/** The gradient that reads x, unless its thin side is made in the same flush; or null. */
Tall* tall_over(Pending& p, const Ten& x) {
  for (Tall& w : p.talls) {
    bool ready = w.wide == x.p && w.W == x.cols;
    for (const Thin& t : p.thins)
      for (int i = 0; i < t.count; i++) ready = ready && t.copy[i] != w.thin[0] && t.scaled[i] != w.thin[0];
    if (ready) return &w;
  }
  return nullptr;
}

/** Nobody will read a result of the activation but `known`, to which its pass gives what they read. */
bool is_spare(const Pending& p, const Ten& x, bool forgotten, int known) {
  const Glu& g = p.glu;
  int readers = 0;
  for (const Span& s : p.reads) readers += meet(s, span_of(x));
  for (const Ten* t : {&g.dh, &g.gate, &g.up}) readers -= *t && meet(span_of(*t), span_of(x));
  return forgotten && readers == known;
}

/** Products that read it. */
int segments_of(const Pending& p, const Rounded& x) {
  int n = 0;
  for (const Product& q : p.products)
    for (int s = 0; s < q.segments; s++) n += q.segment[s].a == x.to;
  return n;
}

/** The pass rounds its results for the products at 8 bits, all or none; what is read in no other way is not written in 16. */
void round_results(Pending& p, GluPass& pass, Rounded* rounded, int rounded_count) {
  const Glu& g = p.glu;
  const bool backward = g.dh.p != nullptr;
  const Ten* results[] = {backward ? &g.d_gate : &g.h, &g.d_up};
  const bool forgotten[] = {backward ? g.d_gate_forgotten : g.h_forgotten, g.d_up_forgotten};
  void** places[] = {backward ? &pass.d_gate : &pass.h, &pass.d_up};
  const int count = backward ? 2 : 1, known = backward ? 2 : 1;  // known: its thin product, and of a gradient dB
  Rounded* to[2];
  for (int i = 0; i < count; i++)
    if (!(to[i] = rounded_of(results[i]->p, results[i]->cols, rounded, rounded_count))) return;
  for (int i = 0; i < count; i++) {
    pass.to8[i] = to[i]->to, pass.scale8[i] = to[i]->scale, to[i]->done = true;
    if (is_spare(p, *results[i], forgotten[i], known + segments_of(p, *to[i]))) *places[i] = nullptr;
  }
}

/** The norm, unless nobody will read it. */
int run_renorm(const Pending& p) {
  const Renorm& n = p.renorm;
  bool wanted = !n.forgotten;
  for (const Span& s : p.reads) wanted = wanted || meet(s, span_of(n.out));
  return wanted ? renorm(n.out, n.x, n.stat, n.w, Ten(), n.plus_one) : US_OK;
}

/** The activation, with the thin products and gradients over it if they are all there. */
int run_activation(Pending& p, Rounded* rounded, int rounded_count) {
  const Glu& g = p.glu;
  const bool backward = g.dh.p != nullptr;
  const int thin_count = backward ? 2 : 1, tall_count = backward ? 3 : 0;
  Thin* thins[] = {thin_over(p, backward ? g.d_gate : g.h), backward ? thin_over(p, g.d_up) : nullptr};
  Tall* talls[] = {tall_over(p, g.d_gate), tall_over(p, g.d_up), tall_over(p, g.h)};
  GluPass pass{g.gate.p, g.up.p, g.dh.p, g.d_gate.p, g.d_up.p, g.h.p, g.act, g.h.rows, g.h.cols, {}, {}, {}, {}};
  bool whole = p.thin_by_k == backward;
  for (int i = 0; i < thin_count; i++) {
    whole = whole && thins[i];
    if (thins[i]) pass.thin[i] = *thins[i];
  }
  for (int i = 0; i < tall_count; i++) {
    whole = whole && talls[i];
    if (talls[i]) pass.tall[i] = *talls[i];
  }
  if (!whole || !glu_fits_sm90(pass)) return backward ? glu_bwd(g.d_gate, g.d_up, g.h, g.dh, g.gate, g.up, g.act) : glu(g.h, g.gate, g.up, g.act);
  if (backward && is_spare(p, g.h, g.h_forgotten, 1)) pass.h = nullptr;  // 1: dA
  round_results(p, pass, rounded, rounded_count);
  for (int i = 0; i < thin_count; i++) thins[i]->count = 0;
  for (int i = 0; i < tall_count; i++) talls[i]->count = 0;
  auto done = [](const auto& x) { return x.count == 0; };
  p.thins.erase(std::remove_if(p.thins.begin(), p.thins.end(), done), p.thins.end());
  p.talls.erase(std::remove_if(p.talls.begin(), p.talls.end(), done), p.talls.end());
  std::vector<Cast> casts;
  casts.swap(p.casts);  // this launch takes them along
  return run_glu_sm90(p.dtype, pass, casts.data(), static_cast<int>(casts.size()));
}

}  // namespace

int flush_pending() {
  if (pending().empty()) return US_OK;
  Pending p;
  {
    Pending& all = pending();
    p.thins.swap(all.thins), p.products.swap(all.products), p.talls.swap(all.talls), p.casts.swap(all.casts);
    p.reads.swap(all.reads), std::swap(p.glu, all.glu), std::swap(p.renorm, all.renorm), std::swap(p.norm, all.norm);
    p.rows = all.rows, p.dtype = all.dtype, p.thin_by_k = all.thin_by_k, p.b_by_k = all.b_by_k, p.e4m3 = all.e4m3;
    all.writes.clear(), all.segments = 0;
    std::swap(p.attention, all.attention);
  }
  const int products = static_cast<int>(p.products.size());
  Rounded rounded[MAX_SEGMENTS];
  int rc = run_attention_bwd(p.attention), n = 0;  // what waits beside it does not meet it
  if (!rc && p.renorm.held()) rc = run_renorm(p);
  if (!rc && products && p.e4m3) rc = place_rounded(p.rows, p.products.data(), products, rounded, n);
  if (!rc && p.glu.held()) rc = run_activation(p, rounded, n);
  if (!rc && p.norm.held()) rc = run_norm(p, rounded, n);
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

}  // namespace us
