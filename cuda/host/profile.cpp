// Where a step's time goes: while a profile runs, every launch is followed by an event; the time from one event to the next
// is the launch's, gaps included. Two functions beside the ABI, for bench/; a recorded graph has no events in it.
#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

#include "pending.h"
#include "state.h"

namespace us {

namespace {
struct Mark { const char* name; cudaEvent_t event; };
std::vector<Mark> marks;
bool running = false;
}  // namespace

void profile_mark(const char* name) {
  if (!running || state().capturing) return;
  cudaEvent_t e = nullptr;
  if (cudaEventCreate(&e) != cudaSuccess || cudaEventRecord(e, state().stream) != cudaSuccess) cudaGetLastError();
  if (e) marks.push_back({name, e});
}

void profile_drop() {
  running = false;
  for (const Mark& m : marks) cudaEventDestroy(m.event);
  marks.clear();
}

}  // namespace us

using namespace us;

/** Starts a profile. */
US_API int32_t us_profile_start(void) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  if (const int rc = flush_pending()) return rc;
  running = true;
  profile_mark("");
  return US_OK;
}

/** Ends it: a line "name calls milliseconds" for each kind of launch. Returns the text's length. */
US_API uint32_t us_profile_stop(char* out, uint32_t cap) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (enter(s) || flush_pending() || s.capturing) return 0;
  cudaStreamSynchronize(s.stream);
  struct Row { const char* name; int calls; double ms; };
  std::vector<Row> rows;
  for (size_t i = 1; i < marks.size(); i++) {
    float ms = 0;
    if (cudaEventElapsedTime(&ms, marks[i - 1].event, marks[i].event) != cudaSuccess) cudaGetLastError(), ms = 0;
    size_t r = 0;
    while (r < rows.size() && strcmp(rows[r].name, marks[i].name)) r++;
    if (r == rows.size()) rows.push_back({marks[i].name, 0, 0});
    rows[r].calls++, rows[r].ms += ms;
  }
  profile_drop();
  std::string text;
  for (const Row& r : rows) {
    char line[160];
    snprintf(line, sizeof line, "%s\t%d\t%.3f\n", r.name, r.calls, r.ms);
    text += line;
  }
  if (out && cap) {
    const size_t n = text.size() < cap - 1 ? text.size() : cap - 1;
    memcpy(out, text.data(), n), out[n] = 0;
  }
  return static_cast<uint32_t>(text.size());
}
