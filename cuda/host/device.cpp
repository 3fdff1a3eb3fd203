// The ABI's part that is no operation: which devices there are, opening and closing, memory, transfers, graphs.
#include <stdio.h>
#include <string.h>

#include "../../ffi/unsloth_extras.h"
#include "../kernels/gemm_sm90.h"
#include "kernels.h"
#include "offload.h"
#include "pending.h"
#include "read_file.h"
#include "state.h"

using namespace us;

namespace {

uint32_t put_text(const char* text, char* out, uint32_t cap) {
  const size_t n = strlen(text);
  if (out && cap) {
    const size_t m = n < cap - 1 ? n : cap - 1;
    memcpy(out, text, m), out[m] = 0;
  }
  return static_cast<uint32_t>(n);
}

uint64_t join(uint32_t lo, uint32_t hi) { return static_cast<uint64_t>(hi) << 32 | lo; }

/** The oldest chip whose code is in the library. */
constexpr int OLDEST = 80;
/** A graph's number has its slot in the low 16 bits (from 1), the slot's generation in the high 16. */
constexpr uint32_t GRAPHS = 1u << 16;

int recording(const char* what) { return fail(US_BUSY, "Cannot %s while a graph is being recorded", what); }

/** A failure that the device keeps answering with until the process ends. */
int device_status(const char* what, cudaError_t e) {
  if (e == cudaSuccess) return US_OK;
  cudaGetLastError();  // or the next launch would report it as its own
  return fail(US_DEVICE, "Cannot %s: the device failed with %s (%s); nothing computed since the last wait can be trusted",
              what, cudaGetErrorString(e), cudaGetErrorName(e));
}

/** Frees everything; the state is as before the first us_open. Called with the lock held. */
void release_all(State& s) {
  drop_pending(), profile_drop();
  cudaGraph_t unfinished = nullptr;
  if (s.capturing) cudaStreamEndCapture(s.stream, &unfinished);
  if (unfinished) cudaGraphDestroy(unfinished);
  cudaStreamSynchronize(s.stream);
  for (Recording& g : s.graphs)
    if (g.exec) cudaGraphExecDestroy(g.exec), g.exec = nullptr, g.generation++;
  release_copies();
  release_readers();
  s.remove_all();
  for (Room& room : s.scratch) cudaFree(room.p), room = {};
  for (char* p : s.retired) cudaFree(p);
  if (s.ring) cudaFreeHost(s.ring);
  cudaStreamDestroy(s.stream);
  cudaGetLastError();
  s.retired.clear(), s.ring = nullptr, s.ring_at = 0, s.stream = nullptr, s.device = -1;
  s.active = s.peak = 0, s.capturing = false, s.live_graphs = 0;
}

int start(State& s, int device) {
  cudaDeviceProp prop;
  cudaError_t e = cudaSetDevice(device);
  if (e == cudaSuccess) e = cudaGetDeviceProperties(&prop, device);
  if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking);
  if (e == cudaSuccess) e = cudaMallocHost(reinterpret_cast<void**>(&s.ring), RING_BYTES);
  if (e != cudaSuccess) {
    cudaGetLastError();
    if (s.stream) cudaStreamDestroy(s.stream), s.stream = nullptr;
    const int status = e == cudaErrorMemoryAllocation ? US_MEMORY : US_DEVICE;
    return fail(status, "Cannot open CUDA device %d: %s (%s); nvidia-smi shows who uses it", device, cudaGetErrorString(e),
                cudaGetErrorName(e));
  }
  s.device = device, s.limit = prop.totalGlobalMem;
  s.shared_limit = prop.sharedMemPerBlockOptin;
  s.multiprocessors = prop.multiProcessorCount, s.capability = prop.major * 10 + prop.minor;
  return US_OK;
}

}  // namespace

US_API uint32_t us_abi_version(void) { return US_ABI_VERSION; }
US_API uint32_t us_ops(char* out, uint32_t cap) { return put_text(US_OP_LIST US_HAS_READ US_HAS_PEAK_RESET US_HAS_FORGET US_HAS_RENORM, out, cap); }
US_API uint32_t us_last_error(char* out, uint32_t cap) { return put_text(last_error(), out, cap); }

US_API uint32_t us_device_count(void) {
  int n = 0;
  if (cudaGetDeviceCount(&n) != cudaSuccess) cudaGetLastError(), n = 0;
  return static_cast<uint32_t>(n);
}

US_API int32_t us_device_probe(void) {
  int n = 0, driver = 0;
  const cudaError_t e = cudaGetDeviceCount(&n);
  if (e == cudaErrorInsufficientDriver) {
    cudaGetLastError(), cudaDriverGetVersion(&driver);
    if (driver == 0) return fail(US_NO_DEVICE, "Cannot use CUDA: no NVIDIA driver is installed; install 580 or later, or use another backend");
    return fail(US_NO_DEVICE, "Cannot use CUDA: the driver supports CUDA %d.%d and %d.%d is needed; update it to 580 or later",
                driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  }
  if (e == cudaErrorNoDevice || (e == cudaSuccess && n == 0)) {
    cudaGetLastError();
    return fail(US_NO_DEVICE, "Cannot use CUDA: the driver finds no device; see nvidia-smi -L and CUDA_VISIBLE_DEVICES");
  }
  if (e != cudaSuccess) {
    cudaGetLastError();
    return fail(US_NO_DEVICE, "Cannot use CUDA: %s (%s)", cudaGetErrorString(e), cudaGetErrorName(e));
  }
  for (int i = 0; i < n; i++) {
    cudaDeviceProp p;
    if (const cudaError_t bad = cudaGetDeviceProperties(&p, i); bad != cudaSuccess) return cuda_error("a look at a device", bad);
    if (p.major * 10 + p.minor >= OLDEST) return US_OK;
  }
  return fail(US_NO_DEVICE, "Cannot use CUDA: no device has compute capability %d.%d or later", OLDEST / 10, OLDEST % 10);
}

US_API uint32_t us_device_name(uint32_t device, char* out, uint32_t cap) {
  cudaDeviceProp p;
  int driver = 0;
  char line[400];
  if (cudaGetDeviceProperties(&p, static_cast<int>(device)) != cudaSuccess) {
    cudaGetLastError();
    return put_text("", out, cap);
  }
  cudaDriverGetVersion(&driver);
  snprintf(line, sizeof line, "%s, %.0f GiB, compute %d.%d, CUDA %d.%d", p.name,
           static_cast<double>(p.totalGlobalMem) / 1073741824.0, p.major, p.minor, driver / 1000, driver % 1000 / 10);
  return put_text(line, out, cap);
}

US_API int32_t us_open(uint32_t device) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (s.opens > 0) {
    if (static_cast<int>(device) != s.device) {
      return fail(US_BUSY, "Cannot open CUDA device %u: device %d is open in this process", device, s.device);
    }
    s.opens++;
    return US_OK;
  }
  if (const int rc = us_device_probe()) return rc;
  int count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess) return cuda_error("us_open", e);
  if (device >= static_cast<uint32_t>(count)) {
    return fail(US_NO_DEVICE, "Cannot open CUDA device %u: the devices here are 0 to %d", device, count - 1);
  }
  if (const int rc = start(s, static_cast<int>(device))) return rc;
  if (s.capability < OLDEST) {
    const int have = s.capability;
    release_all(s);
    return fail(US_NO_DEVICE, "Cannot open CUDA device %u: its compute capability is %d.%d and %d.%d is needed", device,
                have / 10, have % 10, OLDEST / 10, OLDEST % 10);
  }
  s.opens = 1;
  return US_OK;
}

US_API int32_t us_close(void) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  const int rc = enter(s);
  if (s.opens == 0) return rc;
  if (--s.opens == 0) release_all(s);  // a device that failed too
  return US_OK;
}

US_API uint32_t us_act_dtype(void) { return US_BF16; }

US_API uint32_t us_supports(uint32_t dtype, uint32_t as) {
  if (dtype <= US_F16) return 1;
  if (dtype == US_FP8_128) return as == US_AS_WEIGHT && has_sm90();
  return as == US_AS_WEIGHT && is_packed(static_cast<int>(dtype));
}

US_API int32_t us_alloc(us_alloc_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (s.capturing) return recording("allocate");
  const size_t bytes = join(a->bytes_lo, a->bytes_hi);
  void* p = nullptr;
  const cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
  if (e == cudaErrorMemoryAllocation) {
    size_t left = 0, all = 0;
    cudaGetLastError(), cudaMemGetInfo(&left, &all);
    return fail(US_MEMORY, "Cannot allocate %.2f GiB: the device has %.2f of %.2f GiB left; nvidia-smi shows who holds the rest",
                static_cast<double>(bytes) / 1073741824.0, static_cast<double>(left) / 1073741824.0,
                static_cast<double>(all) / 1073741824.0);
  }
  if (e != cudaSuccess) return cuda_error("alloc", e);
  a->handle = s.add(static_cast<char*>(p), bytes);
  if (!a->handle) {
    cudaFree(p);
    return fail(US_MEMORY, "Cannot allocate: all handles are taken");
  }
  s.count(bytes);
  return US_OK;
}

US_API int32_t us_free(uint32_t handle) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return recording("free");
  Slot* slot = s.find(handle);
  if (!slot) return fail(US_STALE, "Cannot free handle %u: it is not allocated or was freed", handle);
  const int joined = join_copies();
  const cudaError_t waited = cudaStreamSynchronize(s.stream), freed = cudaFree(slot->p);
  s.active -= slot->bytes;
  s.remove(handle);
  return joined ? joined : device_status("free", waited == cudaSuccess ? freed : waited);
}

namespace {

/** Where a transfer goes, or null with the error set. */
char* range(State& s, uint32_t handle, uint64_t offset, uint64_t bytes, int& rc) {
  rc = US_OK;
  if ((rc = enter(s)) || (rc = flush_pending())) return nullptr;
  if (s.capturing) return rc = recording("copy"), nullptr;
  if ((rc = join_copies())) return nullptr;
  const Slot* slot = s.find(handle);
  if (!slot) {
    rc = fail(US_STALE, "Cannot copy: handle %u is not allocated or was freed", handle);
    return nullptr;
  }
  if (offset > slot->bytes || bytes > slot->bytes - offset) {
    rc = fail(US_INVALID, "Cannot copy %llu bytes at offset %llu: the allocation has %zu",
              static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(offset), slot->bytes);
    return nullptr;
  }
  return slot->p + offset;
}

}  // namespace

US_API int32_t us_upload(us_upload_args* a, const void* src) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  const size_t bytes = join(a->bytes_lo, a->bytes_hi);
  int rc;
  char* dst = range(s, a->handle, join(a->off_lo, a->off_hi), bytes, rc);
  if (rc || bytes == 0) return rc;
  const Span writes[] = {{dst, bytes}};
  if ((rc = settle(nullptr, 0, writes, 1))) return rc;
  cudaError_t e;
  if (bytes <= RING_LARGEST) {
    if (s.ring_at + bytes > RING_BYTES) {
      if (const int bad = device_status("upload", cudaStreamSynchronize(s.stream))) return bad;
      s.ring_at = 0;
    }
    memcpy(s.ring + s.ring_at, src, bytes);
    e = cudaMemcpyAsync(dst, s.ring + s.ring_at, bytes, cudaMemcpyHostToDevice, s.stream);
    s.ring_at += (bytes + 255) / 256 * 256;
  } else {
    e = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, s.stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(s.stream);
  }
  return device_status("upload", e);
}

US_API int32_t us_download(us_download_args* a, void* dst) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  const size_t bytes = join(a->bytes_lo, a->bytes_hi);
  int rc;
  const char* src = range(s, a->handle, join(a->off_lo, a->off_hi), bytes, rc);
  if (rc || bytes == 0) return rc;
  cudaError_t e = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, s.stream);
  if (e == cudaSuccess) e = cudaStreamSynchronize(s.stream);
  return device_status("download", e);
}

US_API int32_t us_fill(us_fill_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  Ten t;
  if (const int rc = resolve(a->dst, false, t)) return rc;
  const Span writes[] = {span_of(t)};
  if (const int rc = settle(nullptr, 0, writes, 1)) return rc;
  return fill(t, a->value, a->integer);
}

US_API int32_t us_fence(void) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return recording("wait");
  if (const int rc = join_copies()) return rc;
  return device_status("wait", cudaStreamSynchronize(s.stream));
}

US_API int32_t us_memory(us_memory_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  // What the driver and other processes hold is not to be had.
  size_t left = 0, all = 0;
  if (cudaMemGetInfo(&left, &all) != cudaSuccess) cudaGetLastError(), left = s.limit;
  const uint64_t active = s.active, peak = s.peak, limit = s.active + left < s.limit ? s.active + left : s.limit;
  a->active_lo = static_cast<uint32_t>(active), a->active_hi = static_cast<uint32_t>(active >> 32);
  a->peak_lo = static_cast<uint32_t>(peak), a->peak_hi = static_cast<uint32_t>(peak >> 32);
  a->limit_lo = static_cast<uint32_t>(limit), a->limit_hi = static_cast<uint32_t>(limit >> 32);
  return US_OK;
}

US_API int32_t us_peak_reset(void) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  s.peak = s.active;
  return US_OK;
}

US_API int32_t us_graph_begin(void) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return recording("record");
  if (const int rc = join_copies()) return rc;
  const cudaError_t e = cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeRelaxed);
  if (e != cudaSuccess) return cuda_error("graph_begin", e);
  s.capturing = true, drop_pending();  // what a recording keeps in the ring is its own
  return US_OK;
}

US_API int32_t us_graph_end(us_graph_end_args* a) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (!s.capturing) return fail(US_INVALID, "Cannot end a recording: none was begun");
  int unfinished = flush_pending();
  if (const int rc = join_copies()) unfinished = unfinished ? unfinished : rc;
  s.capturing = false, drop_pending();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t e = cudaStreamEndCapture(s.stream, &graph);
  if (e == cudaSuccess && !unfinished) e = cudaGraphInstantiate(&exec, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (unfinished) return unfinished;
  if (e != cudaSuccess) return cuda_error("graph_end", e);
  if (cudaGraphUpload(exec, s.stream) != cudaSuccess) cudaGetLastError();  // then the first launch brings it
  size_t slot = 0;
  while (slot < s.graphs.size() && (s.graphs[slot].exec || s.graphs[slot].generation >= GRAPHS)) slot++;
  if (slot + 1 >= GRAPHS) {
    cudaGraphExecDestroy(exec);
    return fail(US_MEMORY, "Cannot record: all graph numbers are taken");
  }
  if (slot == s.graphs.size()) s.graphs.push_back({});
  s.graphs[slot].exec = exec, s.live_graphs++;
  a->graph = s.graphs[slot].generation << 16 | static_cast<uint32_t>(slot + 1);
  return US_OK;
}

namespace {
Recording* find_graph(State& s, uint32_t id) {
  const size_t slot = (id & 0xffff) - 1;
  if (id == 0 || slot >= s.graphs.size() || !s.graphs[slot].exec) return nullptr;
  return s.graphs[slot].generation == id >> 16 ? &s.graphs[slot] : nullptr;
}
}  // namespace

US_API int32_t us_graph_launch(uint32_t graph) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return recording("launch a graph");
  if (const int rc = join_copies()) return rc;
  drop_pending();  // the recording writes the ring
  const Recording* g = find_graph(s, graph);
  if (!g) return fail(US_STALE, "Cannot launch graph %u: it was freed or never recorded", graph);
  return device_status("launch a graph", cudaGraphLaunch(g->exec, s.stream));
}

US_API int32_t us_graph_free(uint32_t graph) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return recording("free a graph");
  Recording* g = find_graph(s, graph);
  if (!g) return fail(US_STALE, "Cannot free graph %u: it was freed or never recorded", graph);
  const cudaError_t waited = cudaStreamSynchronize(s.stream), freed = cudaGraphExecDestroy(g->exec);
  g->exec = nullptr, g->generation++;
  if (--s.live_graphs == 0) {
    for (char* p : s.retired) cudaFree(p);
    s.retired.clear();
  }
  return device_status("free a graph", waited == cudaSuccess ? freed : waited);
}
