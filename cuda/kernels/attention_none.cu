#include "attention.h"
namespace us {
bool attention_mma(const Attention&, int&) { return false; }
bool attention_mma_bwd(const Attention&, int&) { return false; }
}
