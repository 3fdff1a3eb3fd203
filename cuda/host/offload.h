// Copies between device and pinned host memory beside the computation (offload.cpp), as the other host files see them.
#pragma once
#include "state.h"

namespace us {

/** What is launched from here on runs after every copy so far; before a wait, a transfer, a capture's begin and its end. */
int join_copies();
/** Frees slots, events and the stream; the device is being closed. */
void release_copies();

}  // namespace us
