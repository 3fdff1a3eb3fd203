// SwiGLU and GeGLU on Hopper together with the thin passes over what they give (glu_sm90.cu).
#pragma once
#include "low_rank.h"

namespace us {

/**
 * h = act(gate) * up and thin[0] = alpha * h b^T (b [r,F], f32); all of [M,F]. Or the backward, where dh is
 * set: d_gate, d_up, h from gate, up and dh, which they may overwrite each in its own place; `thin` = alpha * d_gate b and d_up b
 * (b [F,r]); `tall`: dB of gate and of up, dA of the linear that reads h. Of d_gate, d_up, h what is null nobody will read.
 * to8, scale8: h, or d_gate and d_up, in e4m3 too (fp8.h's Rounded), where there is room; then F is a multiple of 128.
 */
struct GluPass {
  const void *gate, *up, *dh;
  void *d_gate, *d_up, *h;
  int act;
  size_t M, F;
  Thin thin[2];  // forward: one, over h
  Tall tall[3];
  uint8_t* to8[2];
  float* scale8[2];
};

/** Whether a pass with these runs in one launch and one for sums: rank 16, SiLU or GELU by tanh. */
bool glu_fits_sm90(const GluPass& g);
/** `casts`: adapters rounded beside it, by warps with nothing else to do. */
int run_glu_sm90(int dtype, const GluPass& g, const Cast* casts, int cast_count);

}  // namespace us
