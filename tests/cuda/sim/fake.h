// A CUDA runtime that computes on the CPU, for tests of cuda/host. Work is queued and runs when somebody waits for it, or
// earlier as the schedule says, so that what the host may not yet reuse or free is really still in use. What a program must
// not do (free twice, wait inside a recording, read pinned memory that changed) ends the process or corrupts what is compared.
#pragma once
#include <cuda_runtime.h>

#include <functional>
#include <string>
#include <vector>

namespace fake {

struct Device { int major, minor; size_t bytes; };

/** LAZY: work runs when waited for. EAGER: at once. RANDOM: some of it now and then. */
enum Schedule { LAZY, EAGER, RANDOM };

struct Settings {
  std::vector<Device> devices{{9, 0, size_t{1} << 30}};
  int driver = 13000;  // 0: none
  cudaError_t count_error = cudaSuccess;
  Schedule schedule = LAZY;
  bool hopper = true;  // whether has_sm90() is true, without which nothing is held back
  long fail_at = -1;   // which call of the runtime from now fails, from 1
  cudaError_t failure = cudaErrorInvalidValue;
};
extern Settings settings;

/** Calls that could have failed since the last reset. */
extern long calls;
/** A new machine: nothing failed, nothing counted. Memory stays. */
void reset();
/** What the program holds: "2 allocations, 1 stream", or "". */
std::string live();
/** Bytes of device memory in use. */
size_t bytes_in_use();
/** Puts a kernel on a stream; false when the launch fails. */
bool launch(cudaStream_t s, std::function<void()> kernel);
/** What is going on, for the message of a broken rule. */
extern std::string going_on;
/** A rule is broken: says so and ends the process. */
[[noreturn]] void broken(const char* rule);
/** Random numbers for the schedule and the tests: splitmix64. */
uint64_t random();
void seed(uint64_t s);

}  // namespace fake
