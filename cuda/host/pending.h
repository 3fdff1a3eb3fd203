// Products that wait for company. A LoRA linear arrives as x W^T, then x A^T, then += (x A^T) B^T; its backward as dy B,
// dy W, += (dy B) A, and two gradients that read x and dy again; and q, k, v or gate, up follow each other over the same x.
// Run one by one, each would read its wide inputs and read and write the whole result again. So on Hopper products are held
// back until something needs a result or changes what they read; then they run as few launches: the thin ones (x A^T, dy B),
// the large ones with all that is added to their results as further segments, the parameter gradients.
//
// Nothing can tell: an operation that touches memory of a waiting product runs after it, by byte ranges. The one difference
// is that a sum is rounded to 16 bits once and not at each addition. What waits is independent of each other but for thin
// results, which are read from copies of their own (shadows), since the arena reuses their place at once.
#pragma once
#include "../kernels/gemm.h"
#include "kernels.h"

namespace us {

/** Bytes that an operation reads or writes. */
struct Span {
  const char* p;
  size_t bytes;
};
inline Span span_of(const Ten& t) { return {t.p, t.bytes}; }

/** Launches what waits. Every call that is no operation begins with it. */
int flush_pending();
/** Forgets what waits and what is remembered; for a device that is being closed. */
void drop_pending();
/** Before an operation that reads and writes these: launches what waits if they meet. */
int settle(const Span* reads, int read_count, const Span* writes, int write_count);
/** The product was taken: it waits, or it joined one that waits; rc is the status. */
bool defer_product(const Gemm& g, int& rc);
/**
 * A gated activation, or where dh is set its backward, waits for what reads its results; `settle` was called for it. False: it
 * must run now.
 */
bool defer_glu(const Ten& h, const Ten& dh, const Ten& gate, const Ten& up, const Ten& d_gate, const Ten& d_up, int act, int& rc);
/** A norm made again waits for gradients that can do without it; `settle` was called for it. */
bool defer_renorm(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, bool plus_one, int& rc);
/** The same of a norm: RMS without a bias, in 16 bits, of rows that a pass over them may make. */
bool defer_norm(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, const Ten& b, int kind, float eps, bool plus_one, int& rc);
/** Nobody will read x any more, but what waits: it need not be written if all that waits can do without. */
void forget(Span x);
/** out = out + x was taken into the waiting product that writes out. */
bool defer_add(const Ten& out, const Ten& x);
/** The rotation of x was taken into what waits and writes x, or failed; rc is the status. */
bool defer_rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor, int& rc);
/** An attention_bwd of these ten, in its order, was taken: it waits for the rotations of dk and dq. Settle first. */
bool defer_attention_bwd(const Ten* t, AttnOpts o, int& rc);

}  // namespace us
