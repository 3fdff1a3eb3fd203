#include "pending_state.h"

#include "state.h"

namespace us {

namespace {

/** Thin results and 16-bit adapters live here until their products have been launched; then the stream's order keeps them. */
constexpr size_t RING = size_t{64} << 20;

bool any(const std::vector<Span>& list, Span s) {
  for (const Span& x : list)
    if (meet(x, s)) return true;
  return false;
}

}  // namespace

Pending& pending() {
  static Pending p;
  return p;
}

bool is_read(Span s) { return any(pending().reads, s); }
bool is_written(Span s) { return any(pending().writes, s); }

bool is_made_first(Span s) {
  const Glu& g = pending().glu;
  const Renorm& again = pending().renorm;
  const Norm& n = pending().norm;
  for (const Ten* t : {&g.h, &g.d_gate, &g.d_up, &again.out, &n.out, &n.stat})
    if (meet(s, span_of(*t))) return true;
  return false;
}

void forget_shadows(Span written) {
  std::vector<Shadow>& s = pending().shadows;
  for (size_t i = s.size(); i-- > 0;)
    if (meet(s[i].of, written)) s.erase(s.begin() + static_cast<long>(i));
  RopeTable& t = pending().rope;
  if (meet(t.pos, written) || meet(t.freqs, written)) t = {};
}

const void* shadow_of(Span result) {
  for (const Shadow& s : pending().shadows)
    if (same(s.of, result)) return s.copy;
  return nullptr;
}

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

void tidy_ring() {
  Pending& p = pending();
  if (p.empty() && p.ring_at > RING / 2) p.shadows.clear(), p.ring_at = 0;
}

void drop_pending() { pending() = Pending(); }

int settle(const Span* reads, int read_count, const Span* writes, int write_count) {
  bool touched = false;
  for (int i = 0; i < read_count; i++) touched = touched || is_written(reads[i]) || is_made_first(reads[i]);
  for (int i = 0; i < write_count; i++) {
    touched = touched || is_written(writes[i]) || is_read(writes[i]) || is_made_first(writes[i]);
    forget_shadows(writes[i]);
  }
  return touched ? flush_pending() : US_OK;
}

}  // namespace us
