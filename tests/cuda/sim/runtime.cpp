// The fake CUDA runtime: see fake.h.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "fake.h"

namespace {
/** A kernel or copy, a mark of an event, or the wait for one. */
struct Work {
  enum { RUN, RECORD, WAIT } kind;
  std::function<void()> run;
  FakeEvent* event = nullptr;
  uint64_t version = 0;
};
}  // namespace

struct FakeStream { std::deque<Work> queue; FakeGraph* into = nullptr; };
// in: recorded into that graph, as `mark`; stale: its last record went into a graph that is finished
struct FakeEvent { uint64_t recorded = 0, done = 0; FakeStream* of = nullptr; FakeGraph* in = nullptr; uint64_t mark = 0; bool stale = false; };
/** A node of a graph. Nodes of a stream follow each other; a WAIT follows the RECORD of its mark. */
struct Node { FakeStream* of; Work work; };
struct FakeExec { FakeStream* main; std::vector<Node> nodes; };
struct FakeGraph : FakeExec { uint64_t marks = 0; };

namespace fake {

Settings settings;
long calls = 0;
std::string going_on;

namespace {
// Held by every call of the runtime: it is called from any thread, as CUDA is.
std::recursive_mutex the_lock;
using Hold = std::lock_guard<std::recursive_mutex>;
std::map<void*, size_t> device_memory;
std::set<void*> pinned;
std::set<FakeStream*> streams;
std::set<FakeEvent*> events;
std::set<FakeGraph*> graphs;
std::set<FakeExec*> execs;
cudaError_t sticky = cudaSuccess;
thread_local cudaError_t last = cudaSuccess;
uint64_t random_state = 1;

cudaError_t answer(cudaError_t e) {
  if (e != cudaSuccess) last = e;
  return e;
}

/** Every call that can fail begins with it. */
cudaError_t point() {
  calls++;
  if (sticky != cudaSuccess) return answer(sticky);
  if (settings.fail_at < 0 || --settings.fail_at != 0) return cudaSuccess;
  settings.fail_at = -1;
  const cudaError_t e = settings.failure;
  if (e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure) sticky = e;
  return answer(e);
}

template <class T> void known(const std::set<T>& all, T x, const char* rule) {
  if (!all.count(x)) broken(rule);
}

void step(FakeStream* s) {
  Work w = std::move(s->queue.front());
  s->queue.pop_front();
  if (w.kind == Work::WAIT)
    while (w.event->done < w.version) step(w.event->of);
  if (w.kind == Work::RECORD && w.version > w.event->done) w.event->done = w.version;
  if (w.kind == Work::RUN) w.run();
}
void drain(FakeStream* s) {
  while (!s->queue.empty()) step(s);
}

void enqueue(FakeStream* s, Work w) {
  known(streams, s, "work for a stream that does not exist");
  if (s->into) return s->into->nodes.push_back({s, std::move(w)});
  s->queue.push_back(std::move(w));
  if (settings.schedule == EAGER) drain(s);
  while (settings.schedule == RANDOM && random() % 3 == 0) {
    auto which = streams.begin();
    std::advance(which, static_cast<long>(random() % streams.size()));
    if (!(*which)->queue.empty()) step(*which);
  }
}

/** An order that the graph allows. LAZY: its first stream as far as it comes; EAGER: the other ones; RANDOM: any. */
std::vector<std::function<void()>> ordered(const FakeExec& g) {
  std::map<FakeStream*, std::deque<const Work*>> left;
  std::vector<std::function<void()>> out;
  std::set<uint64_t> done;
  for (const Node& n : g.nodes) left[n.of].push_back(&n.work);
  for (;;) {
    std::vector<FakeStream*> ready;
    for (auto& [s, work] : left)
      if (!work.empty() && (work[0]->kind != Work::WAIT || done.count(work[0]->version))) ready.push_back(s);
    if (ready.empty()) return out;
    FakeStream* next = ready[settings.schedule == RANDOM ? random() % ready.size() : 0];
    for (FakeStream* s : ready)
      if (settings.schedule != RANDOM && (s == g.main) == (settings.schedule == LAZY)) next = s;
    const Work* w = left[next].front();
    left[next].pop_front();
    if (w->kind == Work::RECORD) done.insert(w->version);
    if (w->kind == Work::RUN) out.push_back(w->run);
  }
}

void not_recording(const char* rule) {
  for (FakeStream* s : streams)
    if (s->into) broken(rule);
}
}  // namespace

void broken(const char* rule) {
  fprintf(stderr, "FAKE CUDA: %s (%s)\n", rule, going_on.c_str());
  abort();
}
uint64_t random() {
  uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
void seed(uint64_t s) { random_state = s; }
void reset() {
  Hold hold(the_lock);
  settings = Settings();
  sticky = last = cudaSuccess, calls = 0;
}
size_t bytes_in_use() {
  Hold hold(the_lock);
  size_t n = 0;
  for (auto& [p, bytes] : device_memory) n += bytes;
  return n;
}
std::string live() {
  Hold hold(the_lock);
  std::string text;
  auto note = [&](size_t n, const char* what) {
    if (n) text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + what;
  };
  note(device_memory.size(), "allocations"), note(pinned.size(), "pinned"), note(streams.size(), "streams");
  note(events.size(), "events"), note(graphs.size(), "graphs"), note(execs.size(), "executables");
  return text;
}
bool launch(cudaStream_t s, std::function<void()> kernel) {
  Hold hold(the_lock);
  if (point() != cudaSuccess) return false;
  enqueue(s, {Work::RUN, std::move(kernel)});
  return true;
}

}  // namespace fake

using namespace fake;

#define POINT()                                                \
  Hold hold(the_lock);                                         \
  if (const cudaError_t e = point(); e != cudaSuccess) return e

const char* cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorDevicesUnavailable: return "CUDA-capable device(s) is/are busy or unavailable";
    default: return "another error";
  }
}
const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : e == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorOther";
}
cudaError_t cudaGetLastError() {
  Hold hold(the_lock);
  const cudaError_t e = last;
  last = sticky;  // what ended the device is answered for ever
  return e;
}

cudaError_t cudaDriverGetVersion(int* version) { return *version = settings.driver, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  POINT();
  *count = 0;
  if (settings.driver < CUDART_VERSION) return answer(cudaErrorInsufficientDriver);
  if (settings.count_error != cudaSuccess) return answer(settings.count_error);
  return *count = static_cast<int>(settings.devices.size()), cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
  POINT();
  if (settings.driver < CUDART_VERSION) return answer(cudaErrorInsufficientDriver);
  if (device < 0 || device >= static_cast<int>(settings.devices.size())) return answer(cudaErrorInvalidDevice);
  const Device& d = settings.devices[static_cast<size_t>(device)];
  *prop = {};
  snprintf(prop->name, sizeof prop->name, "Fake %d", device);
  prop->totalGlobalMem = d.bytes, prop->sharedMemPerBlockOptin = 227 << 10;
  prop->major = d.major, prop->minor = d.minor, prop->multiProcessorCount = 132;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  POINT();
  return device < 0 || device >= static_cast<int>(settings.devices.size()) ? answer(cudaErrorInvalidDevice) : cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  POINT();
  not_recording("memory is allocated during a recording");
  const size_t all = settings.devices[0].bytes;
  if (bytes > all || bytes_in_use() > all - bytes) return answer(cudaErrorMemoryAllocation);
  if (posix_memalign(p, 256, bytes)) return answer(cudaErrorMemoryAllocation);
  memset(*p, 0xcd, bytes < 4096 ? bytes : 4096);
  return device_memory[*p] = bytes, cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  Hold hold(the_lock);
  not_recording("memory is freed during a recording");
  if (p && !device_memory.erase(p)) broken("device memory is freed that is not allocated");
  free(p);  // a failure is that of earlier work: the memory is gone all the same
  return point();
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  POINT();
  if (posix_memalign(p, 4096, bytes)) return answer(cudaErrorMemoryAllocation);
  return pinned.insert(*p), cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaHostAlloc(p, bytes, 0); }
cudaError_t cudaFreeHost(void* p) {
  Hold hold(the_lock);
  if (p && !pinned.erase(p)) broken("pinned memory is freed that is not allocated");
  free(p);
  return point();
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  POINT();
  *all = settings.devices[0].bytes, *left = *all - bytes_in_use();
  return cudaSuccess;
}
// Host memory is read and written when the copy runs: the caller must leave it alone until then, pinned or not.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t s) {
  POINT();
  enqueue(s, {Work::RUN, [=] { memmove(to, from, bytes); }});
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  POINT();
  return streams.insert(*s = new FakeStream), cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  Hold hold(the_lock);
  known(streams, s, "a stream is destroyed that does not exist");
  if (s->into) broken("a stream is destroyed during a recording");
  drain(s);
  streams.erase(s);
  delete s;
  return point();
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  Hold hold(the_lock);
  known(streams, s, "a wait for a stream that does not exist");
  if (s->into) broken("a wait during a recording");
  drain(s);  // a failure is that of the work
  return point();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  POINT();
  known(events, e, "a wait for an event that does not exist");
  if (e->stale) broken("a wait for an event of a finished recording");
  if (s->into && !e->in) broken("a recording waits for what is no part of it");
  if (e->in) s->into = e->in, enqueue(s, {Work::WAIT, {}, nullptr, e->mark});  // the stream joins the recording
  else if (e->of) enqueue(s, {Work::WAIT, {}, e, e->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  POINT();
  return events.insert(*e = new FakeEvent), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  Hold hold(the_lock);
  known(events, e, "an event is destroyed that does not exist");
  while (e->done < e->recorded) step(e->of);
  for (FakeStream* s : streams)
    for (const Work& w : s->queue)
      if (w.event == e) {
        drain(s);
        break;
      }
  events.erase(e);
  delete e;
  return point();
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  POINT();
  known(events, e, "an event is recorded that does not exist");
  e->in = s->into, e->stale = false;
  if (s->into) return enqueue(s, {Work::RECORD, {}, nullptr, e->mark = ++s->into->marks}), cudaSuccess;
  e->of = s;
  enqueue(s, {Work::RECORD, {}, e, ++e->recorded});
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  Hold hold(the_lock);
  known(events, e, "a wait for an event that does not exist");
  if (e->in) broken("a wait for a recorded event");
  while (e->done < e->recorded) step(e->of);
  return point();
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  POINT();
  known(events, from, "a time from an event that does not exist"), known(events, to, "a time to an event that does not exist");
  if (!from->recorded || from->done < from->recorded || to->done < to->recorded) return answer(cudaErrorNotReady);
  return *ms = 1, cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  POINT();
  known(streams, s, "a recording on a stream that does not exist");
  if (s->into) broken("a recording inside a recording");
  return graphs.insert(s->into = new FakeGraph{{s, {}}}), cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  Hold hold(the_lock);
  known(streams, s, "a recording on a stream that does not exist");
  if (!s->into) broken("the end of a recording that was not begun");
  FakeGraph* made = s->into;
  std::map<FakeStream*, const Work*> ends;
  std::set<uint64_t> waited;
  for (const Node& n : made->nodes) ends[n.of] = &n.work;
  for (const Node& n : made->nodes)
    if (n.of == s && n.work.kind == Work::WAIT) waited.insert(n.work.version);
  bool whole = true;  // every stream that joined came back
  for (auto& [x, last] : ends) whole = whole && (x == s || (last->kind == Work::RECORD && waited.count(last->version)));
  for (FakeStream* x : streams) x->into = x->into == made ? nullptr : x->into;
  for (FakeEvent* e : events)
    if (e->in == made) e->in = nullptr, e->stale = true;
  cudaError_t e = point();
  if (e == cudaSuccess && !whole) e = answer(cudaErrorStreamCaptureUnjoined);
  if (e != cudaSuccess) return graphs.erase(made), delete made, *g = nullptr, e;
  return *g = made, cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t g, unsigned long long) {
  POINT();
  known(graphs, g, "an executable of a graph that does not exist");
  return execs.insert(*exec = new FakeExec(*g)), cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  Hold hold(the_lock);
  known(graphs, g, "a graph is destroyed that does not exist");
  graphs.erase(g);
  delete g;
  return point();
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) {
  POINT();
  known(execs, exec, "an upload of an executable that does not exist");
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
  POINT();
  known(execs, exec, "a launch of an executable that does not exist");
  if (s->into) broken("a graph is launched during a recording");
  for (auto& run : ordered(*exec)) enqueue(s, {Work::RUN, std::move(run)});
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  Hold hold(the_lock);
  known(execs, exec, "an executable is destroyed that does not exist");
  execs.erase(exec);
  delete exec;
  return point();
}

namespace {
using u32 = uint32_t;
using u64 = uint64_t;
/** The encoder of TMA descriptors: refuses what the driver documents that it refuses. */
int encode(void*, int, u32 rank, void* p, const u64* sizes, const u64* strides, const u32* box, const u32*, int, int swizzle, int, int) {
  bool ok = reinterpret_cast<uintptr_t>(p) % 16 == 0 && rank >= 1 && rank <= 5;
  for (u32 i = 0; i < rank; i++) ok = ok && sizes[i] > 0 && sizes[i] <= (u64{1} << 32) && box[i] > 0 && box[i] <= 256;
  for (u32 i = 0; i + 1 < rank; i++) ok = ok && strides[i] % 16 == 0 && strides[i] < (u64{1} << 40);
  return ok && (swizzle == 0 || box[0] * 2 <= (16u << swizzle)) ? 0 : 1;
}
}  // namespace
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** f, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  POINT();
  if (strcmp(name, "cuTensorMapEncodeTiled")) return *found = cudaDriverEntryPointSymbolNotFound, cudaSuccess;
  *f = reinterpret_cast<void*>(encode), *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
