// The library's one mutable object, seen by the host files only.
#pragma once
#include <mutex>
#include <vector>

#include "library.h"

namespace us {

/** One allocation. `generation` counts the frees of the slot, so that a stale handle is told from a new one; so for graphs. */
struct Slot { char* p; size_t bytes; uint32_t generation; };
struct Room { char* p; size_t bytes; };
struct Recording { cudaGraphExec_t exec; uint32_t generation; };

/** Pinned memory through which small uploads go, so that they need not wait for the device. */
constexpr size_t RING_BYTES = 4u << 20, RING_LARGEST = 1u << 20;

struct State {
  std::mutex lock;
  int opens = 0, device = -1, multiprocessors = 0, capability = 0;
  cudaStream_t stream = nullptr;
  size_t shared_limit = 0, limit = 0, active = 0, peak = 0;
  std::vector<Slot> slots;
  std::vector<uint32_t> free_slots;
  Room scratch[SCRATCH_COUNT] = {};
  std::vector<char*> retired;
  char* ring = nullptr;
  size_t ring_at = 0;
  bool capturing = false;
  int live_graphs = 0;
  std::vector<Recording> graphs;

  uint32_t add(char* p, size_t bytes);
  Slot* find(uint32_t handle);
  void remove(uint32_t handle);
  /** Frees every allocation; their handles stay stale when the library is opened again. */
  void remove_all();
  /** Adds to the bytes in use. */
  void count(size_t bytes);
};

State& state();
/** Notes the launch just made when a profile runs. */
void profile_mark(const char* name);
/** Ends a profile that nobody ended. */
void profile_drop();
/** The library is open, and its device is this thread's. */
int enter(State& s);
const char* last_error();
/** Looks a tensor up and checks its bytes against the allocation. */
int resolve(const us_tensor& t, bool optional, Ten& out);

}  // namespace us
