// A file's bytes to device memory: several threads read pieces into pinned buffers and send each on its way, so that neither
// one core's copying from the page cache (some 5 GB/s) nor one read at a time of a disk holds the bus back.
#include "read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <atomic>

#include "../../ffi/unsloth_extras.h"
#include "offload.h"
#include "pending.h"

using namespace us;

namespace us {

namespace {

constexpr size_t PIECE = size_t{4} << 20;
constexpr int READERS = 8, BUFFERS = 2;  // a reader fills one while the other is sent

struct Buffer { char* p = nullptr; cudaEvent_t sent = nullptr; };
Buffer buffers[READERS][BUFFERS];

int make_buffers() {
  for (auto& reader : buffers)
    for (Buffer& b : reader) {
      if (b.p) continue;
      cudaError_t e = cudaMallocHost(reinterpret_cast<void**>(&b.p), PIECE);
      if (e == cudaSuccess) e = cudaEventCreateWithFlags(&b.sent, cudaEventDisableTiming);
      if (e == cudaSuccess) continue;
      cudaGetLastError(), release_readers();
      return cuda_error("read", e);
    }
  return US_OK;
}

/** What the readers share; the first failure wins. */
struct Job {
  int fd, device;
  char* to;
  uint64_t from, bytes;
  cudaStream_t stream;
  std::atomic<uint64_t> next{0};
  std::atomic<int> cuda{0}, system{0};
  std::atomic<bool> shorter{false};
  bool failed() const { return cuda || system || shorter; }
};

bool read_piece(Job& job, char* p, uint64_t at, size_t bytes) {
  for (size_t have = 0; have < bytes;) {
    const ssize_t n = pread(job.fd, p + have, bytes - have, static_cast<off_t>(job.from + at + have));
    if (n > 0) have += static_cast<size_t>(n);
    else if (n == 0) return job.shorter = true, false;
    else if (errno != EINTR) return job.system = errno, false;
  }
  return true;
}

void read_pieces(Job& job, Buffer (&own)[BUFFERS]) {
  cudaError_t e = cudaSetDevice(job.device);
  for (int turn = 0; e == cudaSuccess && !job.failed(); turn++) {
    const uint64_t at = job.next.fetch_add(PIECE);
    if (at >= job.bytes) return;
    const size_t bytes = job.bytes - at < PIECE ? static_cast<size_t>(job.bytes - at) : PIECE;
    Buffer& b = own[turn % BUFFERS];
    if ((e = cudaEventSynchronize(b.sent)) != cudaSuccess) break;
    if (!read_piece(job, b.p, at, bytes)) return;
    e = cudaMemcpyAsync(job.to + at, b.p, bytes, cudaMemcpyHostToDevice, job.stream);
    if (e == cudaSuccess) e = cudaEventRecord(b.sent, job.stream);
  }
  if (e != cudaSuccess) job.cuda = e;
}

/** A thread of pthreads: C++'s brings 80 KB of library with it. */
struct Reader { Job* job; int number; pthread_t thread; bool started; };
void* run_reader(void* p) {
  Reader& r = *static_cast<Reader*>(p);
  read_pieces(*r.job, buffers[r.number]);
  return nullptr;
}

int run(Job& job, const char* path) {
  const uint64_t pieces = (job.bytes + PIECE - 1) / PIECE;
  const int readers = pieces < READERS ? static_cast<int>(pieces) : READERS;
  Reader more[READERS];
  for (int i = 1; i < readers; i++) {  // a thread that does not start leaves its pieces to the others
    more[i] = {&job, i, {}, false};
    more[i].started = pthread_create(&more[i].thread, nullptr, run_reader, &more[i]) == 0;
  }
  read_pieces(job, buffers[0]);
  for (int i = 1; i < readers; i++)
    if (more[i].started) pthread_join(more[i].thread, nullptr);
  if (job.system) return fail(US_INVALID, "Cannot read '%s': %s", path, strerror(job.system));
  if (job.shorter) return fail(US_INVALID, "Cannot read '%s': it became shorter while open", path);
  return job.cuda ? cuda_error("read", static_cast<cudaError_t>(job.cuda.load())) : US_OK;
}

uint64_t join(uint32_t lo, uint32_t hi) { return static_cast<uint64_t>(hi) << 32 | lo; }

}  // namespace

void release_readers() {
  for (auto& reader : buffers)
    for (Buffer& b : reader) {
      if (b.sent) cudaEventDestroy(b.sent);
      if (b.p) cudaFreeHost(b.p);
      b = {};
    }
}

}  // namespace us

US_API int32_t us_read(us_read_args* a, const char* path) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  if (s.capturing) return fail(US_BUSY, "Cannot read a file while a graph is being recorded");
  if (const int rc = join_copies()) return rc;
  const Slot* slot = s.find(a->handle);
  if (!slot) return fail(US_STALE, "Cannot read to handle %u: it is not allocated or was freed", a->handle);
  const uint64_t offset = join(a->off_lo, a->off_hi), bytes = join(a->bytes_lo, a->bytes_hi);
  if (offset > slot->bytes || bytes > slot->bytes - offset) {
    return fail(US_INVALID, "Cannot read %llu bytes to offset %llu: the allocation has %zu", static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(offset), slot->bytes);
  }
  if (bytes == 0) return US_OK;
  const Span writes[] = {{slot->p + offset, bytes}};  // copies of thin results that lie there are no longer theirs
  if (const int rc = settle(nullptr, 0, writes, 1)) return rc;
  if (const int rc = make_buffers()) return rc;
  Job job{};
  job.fd = open(path, O_RDONLY | O_CLOEXEC);
  if (job.fd < 0) return fail(US_INVALID, "Cannot read '%s': %s", path, strerror(errno));
  job.device = s.device, job.to = slot->p + offset, job.from = join(a->file_lo, a->file_hi), job.bytes = bytes, job.stream = s.stream;
  const int rc = run(job, path);
  if (rc) cudaStreamSynchronize(s.stream);  // a buffer whose event was not recorded may still be on its way
  close(job.fd);
  return rc;
}
