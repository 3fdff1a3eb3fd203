// A rotation (us_rope) joins what waits and writes what it turns, a product or attention's backward: that turns its sums before it
// rounds and writes them, and the rotation's own pass over memory is saved. Sines and cosines come from a table in scratch memory,
// which is made once for all rotations by the same positions, frequencies and factor, as long as nothing writes these.
#include "../kernels/gemm_sm90.h"
#include "pending_state.h"

namespace us {

namespace {

/** The table of these; null when something that waits still needs another one, or there is no room. rc is the status. */
const float* table_of(const Ten& pos, const Ten& freqs, float factor, int& rc) {
  RopeTable& t = pending().rope;
  rc = US_OK;
  if (t.at && same(t.pos, span_of(pos)) && same(t.freqs, span_of(freqs)) && t.factor == factor) return t.at;
  for (const Product& p : pending().products)
    if (p.rotation.table) return nullptr;
  for (const Rotation& r : pending().attention.turn)
    if (r.table) return nullptr;
  t = {};
  float* at = static_cast<float*>(scratch(SCRATCH_ROPE, pos.numel * freqs.numel * 2 * sizeof(float)));
  if (!at || (rc = rope_table(at, pos, freqs, factor))) return nullptr;
  t = {at, span_of(pos), span_of(freqs), factor};
  return at;
}

/** Where the waiting product that writes x turns its sums; null: none writes x, or it cannot turn them. */
Rotation* in_product(const Ten& x, size_t half) {
  Pending& all = pending();
  if (all.dtype != x.dtype || all.rows != x.shape[0]) return nullptr;
  for (Product& p : all.products)
    if (p.c == x.p && all.rows * p.N * 2 == x.bytes && !p.addend && !p.rotation.table && rotates_sm90(p.N, x.shape[2], half, all.e4m3))
      return &p.rotation;
  return nullptr;
}

/** The same for the dq or dk of a waiting attention_bwd. */
Rotation* in_attention(const Ten& x, size_t half) {
  WaitingAttention& a = pending().attention;
  if (!a.waits || x.shape[2] != 2 * half) return nullptr;
  for (int i = 0; i < 2; i++) {
    const Ten& t = a.t[i];
    bool alike = t.dtype == x.dtype;
    for (int k = 0; k < 3; k++) alike = alike && t.shape[k] == x.shape[k];
    if (t.p == x.p && alike && !a.turn[i].table) return &a.turn[i];
  }
  return nullptr;
}

}  // namespace

bool defer_rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor, int& rc) {
  rc = US_OK;
  if (pos.numel != x.shape[0] || pos.dtype != I32 || freqs.dtype != F32) return false;
  for (const Ten* t : {&pos, &freqs})
    if (is_written(span_of(*t)) || is_made_first(span_of(*t))) return false;
  Rotation* r = in_product(x, freqs.numel);
  if (!r) r = in_attention(x, freqs.numel);
  if (!r) return false;
  const float* table = table_of(pos, freqs, factor, rc);
  if (table) *r = {table, static_cast<int>(freqs.numel), sign};
  return table || rc;
}

bool defer_attention_bwd(const Ten* t, AttnOpts o, int& rc) {
  rc = US_OK;
  if (!attention_bwd_rotates(t)) return false;
  if (pending().attention.waits && (rc = flush_pending())) return true;
  Pending& all = pending();
  WaitingAttention& a = all.attention;
  a = {};
  a.waits = true, a.o = o;
  for (int i = 0; i < 10; i++) a.t[i] = t[i], (i < 3 ? all.writes : all.reads).push_back(span_of(t[i]));
  return true;
}

int launch_attention_bwd() {
  WaitingAttention a;
  Pending& all = pending();
  std::swap(a, all.attention);
  for (int i = 0; a.waits && i < 10; i++) {
    std::vector<Span>& list = i < 3 ? all.writes : all.reads;
    for (size_t j = list.size(); j-- > 0;)
      if (same(list[j], span_of(a.t[i]))) {
        list.erase(list.begin() + static_cast<long>(j));
        break;
      }
  }
  return run_attention_bwd(a);
}

int run_attention_bwd(const WaitingAttention& a) {
  if (!a.waits) return US_OK;
  const Ten* t = a.t;
  return attention_bwd(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], 0, a.o, a.turn[0], a.turn[1]);
}

}  // namespace us
