// f32 to bf16, to nearest even: what clang calls where the CPU has no instruction for it, and neither libgcc nor (for a
// shared object) the system has such a function. Without it the simulator would run only on the CPU it was first built on.
#include "internal.h"

__attribute__((visibility("default"))) __bf16 __truncsfbf2(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  // a NaN stays one: its payload may lie in the half that is cut off
  const uint16_t h = (u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
  __bf16 y;
  memcpy(&y, &h, 2);
  return y;
}
