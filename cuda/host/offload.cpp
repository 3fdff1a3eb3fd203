// Pinned host memory in which tensors wait between the passes, and the copies to and from it. They run on a stream of their
// own, beside the computation: it begins after what was launched before (an event from the main stream), and us_slot_wait
// makes what follows wait for it (an event back). In a capture the same events fork the copy stream into the graph and join
// it again; whatever is still apart is joined before anything looks at the device from outside.
#include "offload.h"

#include <vector>

#include "pending.h"

using namespace us;

namespace us {

namespace {

/** Most slots; core/check.ts has the same number. */
constexpr uint32_t MOST_SLOTS = 4096;

struct HostSlot {
  char* p = nullptr;
  size_t bytes = 0, filled = 0;
  cudaEvent_t copied = nullptr;
  uint32_t epoch = 0;  // of its last copy
};

struct Copies {
  cudaStream_t stream = nullptr;
  cudaEvent_t launched = nullptr, joined = nullptr;
  std::vector<HostSlot> slots;
  std::vector<char*> retired;  // given back while graphs exist that may still copy to them
  bool apart = false;   // the main stream has not waited for all copies
  uint32_t epoch = 1;   // counts the joins: a copy of an earlier epoch has been waited for
};

Copies& copies() {
  static Copies c;
  return c;
}

int make_stream(Copies& c) {
  cudaError_t e = cudaSuccess;
  if (!c.stream) e = cudaStreamCreateWithFlags(&c.stream, cudaStreamNonBlocking);
  if (!c.launched && e == cudaSuccess) e = cudaEventCreateWithFlags(&c.launched, cudaEventDisableTiming);
  if (!c.joined && e == cudaSuccess) e = cudaEventCreateWithFlags(&c.joined, cudaEventDisableTiming);
  return e == cudaSuccess ? US_OK : cuda_error("host_slot", e);
}

void free_slot(HostSlot& h) {
  if (h.p) cudaFreeHost(h.p);
  if (h.copied) cudaEventDestroy(h.copied);
  h = {};
}

void free_retired(Copies& c) {
  for (char* p : c.retired) cudaFreeHost(p);
  c.retired.clear();
}

/** The slot, or null with the error set. */
HostSlot* slot_of(uint32_t slot, const char* what) {
  Copies& c = copies();
  if (slot < c.slots.size() && c.slots[slot].p) return &c.slots[slot];
  fail(US_STALE, "Cannot %s slot %u of host memory: nothing was placed in it", what, slot);
  return nullptr;
}

/** Copies beside the computation, after all that was launched. */
int copy_apart(HostSlot& h, void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const char* what) {
  Copies& c = copies();
  cudaError_t e = cudaEventRecord(c.launched, stream());
  if (e == cudaSuccess) e = cudaStreamWaitEvent(c.stream, c.launched, 0);
  if (e == cudaSuccess) c.apart = true, e = cudaMemcpyAsync(to, from, bytes, kind, c.stream);
  if (e == cudaSuccess) e = cudaEventRecord(h.copied, c.stream);
  if (e != cudaSuccess) return cuda_error(what, e);
  h.epoch = c.epoch;
  return US_OK;
}

}  // namespace

int join_copies() {
  Copies& c = copies();
  if (!c.apart) return US_OK;
  cudaError_t e = cudaEventRecord(c.joined, c.stream);
  if (e == cudaSuccess) e = cudaStreamWaitEvent(stream(), c.joined, 0);
  c.apart = false, c.epoch++;
  return e == cudaSuccess ? US_OK : cuda_error("slot_wait", e);
}

void release_copies() {
  Copies& c = copies();
  if (c.stream) cudaStreamSynchronize(c.stream);
  for (HostSlot& h : c.slots) free_slot(h);
  free_retired(c);
  if (c.launched) cudaEventDestroy(c.launched);
  if (c.joined) cudaEventDestroy(c.joined);
  if (c.stream) cudaStreamDestroy(c.stream);
  c.slots.clear();
  c.stream = nullptr, c.launched = c.joined = nullptr, c.apart = false, c.epoch++;
}

}  // namespace us

US_API int32_t us_host_slot(const us_host_slot_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (s.capturing) return fail(US_BUSY, "Cannot place host memory while a graph is being recorded");
  if (a->slot >= MOST_SLOTS) return fail(US_INVALID, "Cannot place slot %u: slots are numbered below %u", a->slot, MOST_SLOTS);
  Copies& c = copies();
  const size_t bytes = static_cast<size_t>(a->bytes_hi) << 32 | a->bytes_lo;
  const bool taken = a->slot < c.slots.size() && c.slots[a->slot].p;
  if (bytes == 0) {
    if (!taken) return US_OK;
    if (const int rc = join_copies()) return rc;
    const cudaError_t e = cudaStreamSynchronize(s.stream);  // a graph may be copying too
    HostSlot& h = c.slots[a->slot];
    if (s.live_graphs > 0) c.retired.push_back(h.p), h.p = nullptr;
    free_slot(h);
    return e == cudaSuccess ? US_OK : cuda_error("host_slot", e);
  }
  if (taken) return fail(US_BUSY, "Cannot place %zu bytes in slot %u: it is taken", bytes, a->slot);
  if (s.live_graphs == 0) free_retired(c);
  if (const int rc = make_stream(c)) return rc;
  if (a->slot >= c.slots.size()) c.slots.resize(a->slot + 1);
  HostSlot& h = c.slots[a->slot];
  const cudaError_t e = cudaHostAlloc(reinterpret_cast<void**>(&h.p), bytes, cudaHostAllocDefault);
  if (e != cudaSuccess) {
    h = {};
    if (e != cudaErrorMemoryAllocation) return cuda_error("host_slot", e);
    cudaGetLastError();
    return fail(US_MEMORY, "Cannot pin %.2f GiB of host memory for slot %u: %s", static_cast<double>(bytes) / 1073741824.0,
                a->slot, cudaGetErrorString(e));
  }
  h.bytes = bytes;
  const cudaError_t made = cudaEventCreateWithFlags(&h.copied, cudaEventDisableTiming);
  if (made == cudaSuccess) return US_OK;
  free_slot(h);
  return cuda_error("host_slot", made);
}

US_API int32_t us_stash(const us_stash_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  Ten x;
  if (const int rc = resolve(a->x, false, x)) return rc;
  HostSlot* h = slot_of(a->slot, "write");
  if (!h) return US_STALE;
  if (x.bytes > h->bytes) return fail(US_INVALID, "Cannot stash %zu bytes in slot %u: it has %zu", x.bytes, a->slot, h->bytes);
  const Span reads[] = {span_of(x)};
  if (const int rc = settle(reads, 1, nullptr, 0)) return rc;
  if (const int rc = copy_apart(*h, h->p, x.p, x.bytes, cudaMemcpyDeviceToHost, "stash")) return rc;
  h->filled = x.bytes;
  return US_OK;
}

US_API int32_t us_fetch(const us_fetch_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  Ten out;
  if (const int rc = resolve(a->out, false, out)) return rc;
  HostSlot* h = slot_of(a->slot, "read");
  if (!h) return US_STALE;
  if (h->filled != out.bytes) {
    return fail(US_INVALID, "Cannot fetch %zu bytes from slot %u: it holds %zu", out.bytes, a->slot, h->filled);
  }
  const Span writes[] = {span_of(out)};
  if (const int rc = settle(nullptr, 0, writes, 1)) return rc;
  return copy_apart(*h, out.p, h->p, out.bytes, cudaMemcpyHostToDevice, "fetch");
}

US_API int32_t us_slot_wait(const us_slot_wait_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  HostSlot* h = slot_of(a->slot, "wait for");
  if (!h) return US_STALE;
  if (h->epoch != copies().epoch) return US_OK;
  const cudaError_t e = cudaStreamWaitEvent(s.stream, h->copied, 0);
  return e == cudaSuccess ? US_OK : cuda_error("slot_wait", e);
}
