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
#include "library.h"

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
/** out = out + x was taken into the waiting product that writes out. */
bool defer_add(const Ten& out, const Ten& x);

}  // namespace us
