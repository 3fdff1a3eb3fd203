// What waits, seen by the files pending*.cpp only.
#pragma once
#include <vector>

#include "../kernels/low_rank.h"
#include "pending.h"

namespace us {

/** A thin result and its copy in the ring. */
struct Shadow { Span of; const void* copy; };

/** A gated activation or its backward: what is written first of all, so what reads it may wait too. Absent: h is null. */
struct Glu {
  Ten h, dh, gate, up, d_gate, d_up;
  int act;
  bool h_forgotten, d_gate_forgotten, d_up_forgotten;  // nobody will read it but what waits
  bool held() const { return h.p != nullptr; }
};

/**
 * A norm made again, out = x * rstd * w. A gradient that sums over its rows reads x instead, its thin side times rstd and its
 * columns times w, and out is not written if nobody else reads it. Absent: out is null.
 */
struct Renorm {
  Ten out, x, stat, w;
  bool plus_one, forgotten;
  bool held() const { return out.p != nullptr; }
};

/** Sines and cosines in scratch memory, and of what they are. Null: none. */
struct RopeTable {
  const float* at = nullptr;
  Span pos{}, freqs{};
  float factor = 0;
};

/** An attention_bwd, and how what it writes is turned. dq is t[0], dk t[1]. */
struct WaitingAttention {
  bool waits = false;
  Ten t[10] = {};
  AttnOpts o{};
  Rotation turn[2];
};

/** An RMS norm that waits for thin products over `out`: it too is written first of all. Absent: out is null. */
struct Norm {
  Ten out, stat, x, w;
  float eps;
  bool plus_one;
  bool held() const { return out.p != nullptr; }
};

struct Pending {
  Glu glu{};
  Renorm renorm{};
  Norm norm{};
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
  RopeTable rope;
  WaitingAttention attention;
  bool empty() const { return !glu.held() && !renorm.held() && !norm.held() && thins.empty() && products.empty() && talls.empty() && !attention.waits; }
};
Pending& pending();

inline bool same(Span a, Span b) { return a.p == b.p && a.bytes == b.bytes; }
inline bool meet(Span a, Span b) { return a.bytes && b.bytes && a.p < b.p + b.bytes && b.p < a.p + a.bytes; }
bool is_read(Span s);
/** By what waits; not by the activation or the norm, which run before all that waits. */
bool is_written(Span s);
/** By the activation or the norm that waits. */
bool is_made_first(Span s);
/** Forgets copies and tables made of what is written. */
void forget_shadows(Span written);
/** Null: none. */
const void* shadow_of(Span result);
/** Room in the ring; null with rc 0 when it is too small. When the ring begins again, what points into it is launched. */
void* ring(size_t bytes, int& rc);
/** Lets the ring begin again if nothing waits: before company gathers, not in the middle. */
void tidy_ring();
int run_attention_bwd(const WaitingAttention& a);
/** Launches it alone, if it waits: what comes now would only wait for its results. */
int launch_attention_bwd();
/** Launches what waits unless it has these rows and this type. */
int admit(size_t rows, int dtype);
struct Rounded;
/** The matrix of K columns at `from` in 8 bits, which is not done yet; or null. */
Rounded* rounded_of(const void* from, size_t K, Rounded* rounded, int count);
/** The norm, by the pass over its result if there is one; that pass also fills what is to be rounded of it. */
int run_norm(Pending& p, Rounded* rounded, int rounded_count);

}  // namespace us
