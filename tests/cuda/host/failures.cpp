// Every call of the runtime fails in turn, in three ways. The library answers with a status and a sentence, or computes the
// right thing all the same; closing gives everything back; and after a failure that is not the device's end, it works again.
#include "host.h"

#include <thread>

namespace {

struct Outcome { int32_t status = US_OK; std::string where, sentence; Bytes result; long before_close = 0; };

/** One of everything that calls the runtime; stops at the first call that fails. */
Outcome scenario() {
  Outcome o;
  auto must = [&](const char* what, int32_t rc) {
    if (o.status == US_OK && rc != US_OK) o.status = rc, o.where = what, o.sentence = error();
    return rc == US_OK;
  };
  uint32_t h = 0, other = 0;
  us_graph_end_args g{};
  Bytes start(40960), large(2 << 20, 3);
  for (size_t i = 0; i < start.size(); i++) start[i] = static_cast<uint8_t>(i * 7 + i / 256);
  o.result.resize(start.size());
  auto get = [&](uint64_t bytes, uint32_t& handle) {
    us_alloc_args a{static_cast<uint32_t>(bytes), 0, 0};
    const int32_t rc = us_alloc(&a);
    return handle = a.handle, rc;
  };
  // x [16,72], w [72,72], a [16,72], b [72,16], xa [16,16], y [16,72], da [16,72]
  auto linear = [&] {
    T x = view(h, 0, US_BF16, {16, 72}), w = view(h, 4096, US_BF16, {72, 72}), y = view(h, 32768, US_BF16, {16, 72});
    T a = view(h, 16384, US_F32, {16, 72}), b = view(h, 24576, US_F32, {72, 16}), xa = view(h, 36864, US_BF16, {16, 16});
    us_matmul_args xw{y, x, w, {}, 0, 1, 1, 0}, thin{xa, x, a, {}, 0, 1, 1, 0}, join{y, xa, b, {}, 0, 1, 2, 1}, tall{a, xa, x, {}, 1, 0, 1, 1};
    return us_matmul(&xw) || us_matmul(&thin) || us_matmul(&join) || us_matmul(&tall);
  };
  auto rest = [&] {
    us_row_norm_args rn{view(h, 38912, US_F32, {64}), view(h, 0, US_U8, {64, 16}), view(h, 256, US_F32, {1, 16}), view(h, 512, US_F32, {64, 1}), 1};
    rn.w.dtype = US_F32, rn.w.shape[1] = 4;
    us_fill_args fill{view(h, 40000, US_I32, {16}), 0, 5};
    return us_row_norm(&rn) || us_fill(&fill);
  };
  auto offload = [&](bool placed) {
    us_host_slot_args place{7, 1024, 0};
    us_stash_args stash{7, view(h, 0, US_BF16, {16, 32})};
    us_slot_wait_args wait{7};
    us_fetch_args fetch{view(h, 1024, US_BF16, {16, 32}), 7};
    return (!placed && us_host_slot(&place)) || us_stash(&stash) || us_slot_wait(&wait) || us_fetch(&fetch);
  };
  if (!must("open", us_open(0))) return o;
  must("alloc", get(start.size(), h)) && must("alloc", get(large.size(), other)) && must("upload", upload(h, 0, start)) &&
      must("upload", upload(other, 0, large)) && must("operations", linear() ? US_DEVICE : US_OK) &&
      must("operations", rest() ? US_DEVICE : US_OK) && must("slots", offload(false) ? US_DEVICE : US_OK) && must("fence", us_fence()) && must("begin", us_graph_begin()) &&
      must("recorded", linear() ? US_DEVICE : US_OK) && must("recorded", offload(true) ? US_DEVICE : US_OK) && must("end", us_graph_end(&g)) && must("launch", us_graph_launch(g.graph)) &&
      must("operations", linear() ? US_DEVICE : US_OK) && must("free", us_free(other)) && must("download", download(h, 0, o.result)) &&
      must("free graph", us_graph_free(g.graph)) && must("free", us_free(h));
  o.before_close = fake::calls;
  if (o.status == US_OK) must("close", us_close());
  else us_close();
  return o;
}

}  // namespace

void test_failures() {
  fake::reset();
  const Outcome good = scenario();
  const long calls = fake::calls;
  check("without failures all is well: " + good.where + " " + good.sentence, good.status == US_OK && fake::live().empty() && calls > 30);
  long told = 0, survived = 0;
  for (cudaError_t e : {cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorIllegalAddress}) {
    const bool final = e == cudaErrorIllegalAddress;
    for (long i = 1; i <= calls; i++) {
      fake::reset();
      fake::settings.fail_at = i, fake::settings.failure = e;
      const Outcome o = scenario();
      const std::string which = "failure " + std::to_string(e) + " in call " + std::to_string(i) + ", " + o.where + " (" + o.sentence + "): ";
      check(which + "fired", fake::settings.fail_at == -1);
      if (o.status == US_OK) survived++, check(which + "the result is right", o.result == good.result);
      else told++, check(which + "a sentence with the reason", o.sentence.rfind("Cannot ", 0) == 0 && (o.sentence.find(cudaGetErrorString(e)) != std::string::npos || (e == cudaErrorMemoryAllocation && (o.sentence.find("the device has") != std::string::npos))));
      if (o.status != US_OK && e == cudaErrorMemoryAllocation && (o.where == "alloc")) check(which + "no memory is US_MEMORY", o.status == US_MEMORY);
      check(which + "all is given back: " + fake::live(), fake::live().empty());
      if (final) {
        // A lost device: nothing computed may pass for right.
        check(which + "a lost device is told", o.status != US_OK || i > good.before_close);
        continue;
      }
      fake::settings.fail_at = -1;
      const Outcome again = scenario();
      check(which + "works again: " + again.where + " " + again.sentence, again.status == US_OK && again.result == good.result);
    }
  }
  // A thread that never called chooses the device first, which may fail: closing gives everything back all the same.
  fake::reset();
  us_open(0), alloc(256);
  int32_t rc = US_DEVICE;
  fake::settings.fail_at = 1, fake::settings.failure = cudaErrorIllegalAddress;
  std::thread([&] { rc = us_close(); }).join();
  check("a close from another thread on a lost device: " + fake::live(), rc == US_OK && fake::settings.fail_at == -1 && fake::live().empty());
  printf("failures: %ld calls, %ld told, %ld survived\n", calls, told, survived);
  fake::reset();
}
