// How long does the device stand idle between launches? CUPTI's own clock around every kernel, copy and fill of a process, node by
// node inside graphs; at its end the last two seconds are summed up. CUPTI works between launches too: an upper bound.
//   g++ -O2 -shared -fPIC -o /tmp/gaps.so bench/launch_gaps.cpp -I$CUDA/include -L$CUDA/lib64 -lcupti
//   CUDA_INJECTION64_PATH=/tmp/gaps.so deno run -A bench/cuda_step.ts --steps 30
// $CUDA: a toolkit of version 13, or what the wheels nvidia-cuda-cupti and nvidia-cuda-runtime lay down.
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace {

struct Span { uint64_t start, end; };
// never destroyed: records come in until the process ends
std::vector<Span>& spans = *new std::vector<Span>;
std::mutex& lock = *new std::mutex;
constexpr size_t BYTES = 8 << 20;

void CUPTIAPI give(uint8_t** buffer, size_t* size, size_t* records) {
  *buffer = static_cast<uint8_t*>(aligned_alloc(8, BYTES)), *size = BYTES, *records = 0;
}

void CUPTIAPI take(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  std::lock_guard<std::mutex> hold(lock);
  CUpti_Activity* r = nullptr;
  while (valid && cuptiActivityGetNextRecord(buffer, valid, &r) == CUPTI_SUCCESS) {
    if (r->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* k = reinterpret_cast<CUpti_ActivityKernel10*>(r);
      spans.push_back({k->start, k->end});
    } else if (r->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* c = reinterpret_cast<CUpti_ActivityMemcpy6*>(r);
      spans.push_back({c->start, c->end});
    } else if (r->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* m = reinterpret_cast<CUpti_ActivityMemset4*>(r);
      spans.push_back({m->start, m->end});
    }
  }
  free(buffer);
}

void report() {
  cuptiActivityFlushAll(1);
  std::lock_guard<std::mutex> hold(lock);
  std::sort(spans.begin(), spans.end(), [](Span a, Span b) { return a.start < b.start; });
  if (spans.empty()) return;
  const uint64_t last = spans.back().end, from = last > 2000000000 ? last - 2000000000 : 0;
  uint64_t until = 0, first = 0, within = 0, between = 0, launches = 0;
  for (const Span& s : spans) {
    if (s.start < from) continue;
    if (!first) first = until = s.start;
    if (s.start > until) (s.start - until < 50000 ? within : between) += s.start - until;
    until = std::max(until, s.end), launches++;
  }
  const double all = static_cast<double>(until - first);
  fprintf(stderr, "launch gaps: %llu launches in %.1f ms; idle between them %.2f ms (%.2f %%), %.2f us a launch; longer than 50 us %.2f ms (%.2f %%)\n",
          static_cast<unsigned long long>(launches), all / 1e6, within / 1e6, 100 * within / all, within / 1e3 / launches, between / 1e6, 100 * between / all);
}

}  // namespace

/** The driver calls it when it starts. */
extern "C" int InitializeInjection(void) {
  bool ok = cuptiActivityRegisterCallbacks(give, take) == CUPTI_SUCCESS;
  for (CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET})
    ok = ok && cuptiActivityEnable(kind) == CUPTI_SUCCESS;
  if (!ok) fprintf(stderr, "launch gaps: Cannot watch launches: CUPTI refuses\n");
  else atexit(report);
  return ok;
}
