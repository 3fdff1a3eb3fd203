// A gated activation and its gradients in whole numbers, element by element.
#pragma once
#include <stdint.h>

namespace fake {

inline uint32_t activation(uint32_t gate, uint32_t up, uint32_t act) { return 3 * gate + 5 * up + act + 1; }
inline uint32_t gate_gradient(uint32_t gate, uint32_t up, uint32_t dh) { return gate + 7 * up + 11 * dh + 2; }
inline uint32_t up_gradient(uint32_t gate, uint32_t up, uint32_t dh) { return 9 * gate + up + 13 * dh + 3; }

}  // namespace fake
