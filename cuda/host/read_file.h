// Reading files to the device (read_file.cpp), as the other host files see it.
#pragma once
#include "state.h"

namespace us {

/** Frees the pinned buffers and events; the device is being closed. */
void release_readers();

}  // namespace us
