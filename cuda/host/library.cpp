// State of the open library: the device, its stream, the table of handles, scratch memory, the error sentence. One device
// a process, one stream, one lock: calls may come from any thread. Plain C++ over the CUDA runtime, so that this part is
// also built on the CPU against a stand-in runtime and run under ASan and UBSan (tests/cuda/).
#include "library.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "state.h"

namespace us {

State& state() {
  static State s;
  return s;
}

namespace {
thread_local char error_text[512];
}

const char* last_error() { return error_text; }

int fail(int status, const char* format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error_text, sizeof error_text, format, args);
  va_end(args);
  return status;
}

int unsupported(const char* what, long value) {
  return fail(US_UNSUPPORTED, "Cannot run this on CUDA: no kernel for %s %ld", what, value);
}

int cuda_error(const char* what, cudaError_t e) {
  cudaGetLastError();  // or the next launch would report it as its own
  const int status = e == cudaErrorMemoryAllocation ? US_MEMORY : US_DEVICE;
  return fail(status, "Cannot run %s: CUDA says %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
}

int launched(const char* op) {
  const cudaError_t e = cudaGetLastError();
  if (e != cudaSuccess) return cuda_error(op, e);
  profile_mark(op);
  return US_OK;
}

cudaStream_t stream() { return state().stream; }
int multiprocessors() { return state().multiprocessors; }
size_t shared_limit() { return state().shared_limit; }
int capability() { return state().capability; }

size_t bytes_of(int dtype, size_t n) { return us_bytes(static_cast<uint32_t>(dtype), n); }

void* scratch(Scratch slot, size_t bytes) {
  State& s = state();
  Room& room = s.scratch[slot];
  if (bytes <= room.bytes) return room.p;
  if (s.capturing) {
    fail(US_MEMORY, "Cannot record: an operation needs %zu bytes of scratch and no run before needed more than %zu", bytes,
         room.bytes);
    return nullptr;
  }
  // A recorded graph still points at the old room: it stays until the library closes.
  if (room.p) {
    if (s.live_graphs > 0) s.retired.push_back(room.p);
    else cudaStreamSynchronize(s.stream), cudaFree(room.p);
    s.active -= room.bytes;
  }
  room = {};
  const size_t want = bytes + bytes / 8;
  void* p = nullptr;
  const cudaError_t e = cudaMalloc(&p, want);
  if (e != cudaSuccess) {
    if (e != cudaErrorMemoryAllocation) return cuda_error("scratch memory", e), nullptr;
    cudaGetLastError();
    fail(US_MEMORY, "Cannot get %zu bytes of scratch memory: the device has no more", want);
    return nullptr;
  }
  room = {static_cast<char*>(p), want};
  s.count(want);
  return p;
}

// ---- handles: slot in the low 20 bits (from 1), generation in the high 12 ----

namespace {
constexpr uint32_t SLOT_BITS = 20, SLOT_MASK = (1u << SLOT_BITS) - 1, GENERATIONS = 1u << (32 - SLOT_BITS);

/** Elements that are whole blocks of every type. */
constexpr uint64_t LARGEST_BLOCK = 128 * 128;

/** Bytes that an element of the type must be aligned to: a misaligned access would end the process's use of the device. */
uint64_t alignment(uint32_t dtype) {
  if (dtype == US_F32 || dtype == US_I32) return 4;
  if (dtype == US_FP8_128) return 16;
  return dtype == US_U8 || dtype == US_FP8_E4M3 ? 1 : 2;
}

/** Elements of the tensor; false when 2^56 or more, whose bytes might not be a number of 64 bits. */
bool count_elements(const us_tensor& t, uint64_t& n) {
  n = 1;
  bool fits = true;
  for (uint32_t s : t.shape) fits = fits && !__builtin_mul_overflow(n, s, &n) && n < (uint64_t{1} << 56);
  return fits;
}
}  // namespace

uint32_t State::add(char* p, size_t bytes) {
  uint32_t slot;
  if (!free_slots.empty()) slot = free_slots.back(), free_slots.pop_back();
  else if (slots.size() < SLOT_MASK) slot = static_cast<uint32_t>(slots.size()), slots.push_back({});
  else return 0;
  slots[slot].p = p, slots[slot].bytes = bytes;
  return slots[slot].generation << SLOT_BITS | (slot + 1);
}

Slot* State::find(uint32_t handle) {
  const uint32_t slot = (handle & SLOT_MASK) - 1;
  if (handle == 0 || slot >= slots.size()) return nullptr;
  Slot& s = slots[slot];
  return s.p && s.generation == handle >> SLOT_BITS ? &s : nullptr;
}

void State::remove(uint32_t handle) {
  const uint32_t slot = (handle & SLOT_MASK) - 1;
  slots[slot].p = nullptr;
  // A slot whose generations are used up is left: its next handle would be an old one again.
  if (++slots[slot].generation < GENERATIONS) free_slots.push_back(slot);
}

void State::remove_all() {
  for (uint32_t i = static_cast<uint32_t>(slots.size()); i-- > 0;)
    if (slots[i].p) cudaFree(slots[i].p), remove(i + 1);
}

void State::count(size_t bytes) {
  active += bytes;
  if (active > peak) peak = active;
}

int enter(State& s) {
  static thread_local int current = -1;
  if (s.opens == 0) return fail(US_DEVICE, "Cannot call the CUDA library: us_open has not been called");
  if (current == s.device) return US_OK;
  const cudaError_t e = cudaSetDevice(s.device);
  if (e != cudaSuccess) return cuda_error("open", e);
  current = s.device;
  return US_OK;
}

int resolve(const us_tensor& t, bool optional, Ten& out) {
  out = {};
  if (t.handle == 0 && optional) return US_OK;
  Slot* s = state().find(t.handle);
  if (!s) return fail(US_STALE, "Cannot use handle %u: it is not allocated or was freed", t.handle);
  if (t.ndim > 4) return fail(US_INVALID, "Cannot use a tensor of %u axes: at most 4", t.ndim);
  out.dtype = static_cast<int>(t.dtype), out.ndim = static_cast<int>(t.ndim);
  for (int i = 0; i < 4; i++) out.shape[i] = t.shape[i];
  uint64_t n;
  if (!count_elements(t, n)) {
    return fail(US_INVALID, "Cannot use a tensor of %u x %u x %u x %u elements: no device holds as many", t.shape[0],
                t.shape[1], t.shape[2], t.shape[3]);
  }
  if (us_bytes(t.dtype, LARGEST_BLOCK) == 0) return fail(US_UNSUPPORTED, "Cannot use element type %u: it is unknown", t.dtype);
  out.numel = us_numel(&t), out.cols = us_cols(&t), out.rows = us_rows(&t), out.bytes = us_bytes(t.dtype, out.numel);
  const uint64_t offset = us_offset(&t);
  if (offset > s->bytes || out.bytes > s->bytes - offset) {
    return fail(US_INVALID, "Cannot use a tensor of %zu bytes at offset %llu: the allocation has %zu bytes", out.bytes,
                static_cast<unsigned long long>(offset), s->bytes);
  }
  if (offset % alignment(t.dtype)) {
    return fail(US_INVALID, "Cannot use a tensor at offset %llu: it must be a multiple of %llu",
                static_cast<unsigned long long>(offset), static_cast<unsigned long long>(alignment(t.dtype)));
  }
  out.p = s->p + offset;
  return US_OK;
}

}  // namespace us
