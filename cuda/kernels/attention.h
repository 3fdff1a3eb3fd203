// One attention problem as the engines see it. Sequences lie end to end on one axis of N tokens; a row of scores is
// masked to its own sequence by the row's first token, so a tile needs no table of sequences and may span several.
#pragma once
#include "../host/kernels.h"

namespace us {

struct Attention {
  const void *q, *k, *v, *dout;
  void *out, *dq, *dk, *dv;
  float *lse, *delta;  // [H,N]; delta: sum of dOut * out of a row
  const int* cu;       // [S+1]
  int N, H, K, d, S;   // K kv heads, S sequences
  AttnOpts o;
  int dtype;
  Rotation turn_q, turn_k;  // of dq and dk, where attention_bwd_rotates
};

/** f32 arithmetic, any type, d <= 256. */
int attention_exact(const Attention& a);
int attention_exact_bwd(const Attention& a);
/** 16-bit types on wgmma; false when the device or the problem is not for it. */
bool attention_sm90(const Attention& a, int& rc);
bool attention_sm90_bwd(const Attention& a, int& rc);
/** The same in five products for seven, without a need of delta; false too when there is too little to share out. */
bool attention_sm90_bwd_once(const Attention& a, int& rc);
bool fits_sm90_bwd_once(const Attention& a);

}  // namespace us
