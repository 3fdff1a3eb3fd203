// Recordings and profiles: what may not happen during one, whose number is whose, what a replay still points at.
#include "host.h"

extern "C" int32_t us_profile_start(void);
extern "C" uint32_t us_profile_stop(char* out, uint32_t cap);

namespace {

int32_t add(T out, T a, T b) {
  us_add_args args{out, a, b};
  return us_add(&args);
}
/** Sums the rows of w by way of scratch memory of w's size. */
int32_t through_scratch(T out, T w) {
  us_row_norm_args args{out, w, out, out, 1};
  return us_row_norm(&args);
}
int32_t end(uint32_t& graph) {
  us_graph_end_args a{};
  const int32_t rc = us_graph_end(&a);
  return graph = a.graph, rc;
}

void rules() {
  const uint32_t h = alloc(1024);
  T x = view(h, 0, US_I32, {4});
  uint32_t g = 0, other = 0, first = 0;
  check("no end without a beginning", end(g) == US_INVALID && says("none was begun"));
  check("no launch of what never was", us_graph_launch(0) == US_STALE && us_graph_launch(1) == US_STALE && us_graph_free(70000) == US_STALE);
  check("begin", us_graph_begin() == US_OK && end(other) == US_OK && us_graph_begin() == US_OK);
  first = other;
  Bytes b(16, 1);
  us_alloc_args more{16, 0, 0};
  check("not in a recording: begin", us_graph_begin() == US_BUSY && says("Cannot record while a graph is being recorded"));
  check("not in a recording: alloc", us_alloc(&more) == US_BUSY && says("Cannot allocate while"));
  check("not in a recording: free", us_free(h) == US_BUSY && says("Cannot free while"));
  check("not in a recording: transfers", upload(h, 0, b) == US_BUSY && download(h, 0, b) == US_BUSY && says("Cannot copy while"));
  check("not in a recording: fence", us_fence() == US_BUSY && says("Cannot wait while"));
  check("not in a recording: launch", us_graph_launch(other) == US_BUSY && says("Cannot launch a graph while"));
  check("not in a recording: free of a graph", us_graph_free(other) == US_BUSY && says("Cannot free a graph while"));
  check("scratch does not grow in a recording", through_scratch(view(h, 0, US_F32, {4}), view(h, 64, US_F32, {4, 8})) == US_MEMORY && says("Cannot record"));
  check("memory is told in a recording", memory().active_lo > 0);
  check("add", add(x, x, x) == US_OK && end(g) == US_OK && g != other && us_graph_free(other) == US_OK);
  check("nothing ran", upload(h, 0, b) == US_OK && download(h, 0, b) == US_OK && b == Bytes(16, 1));
  check("a replay runs", us_graph_launch(g) == US_OK && us_graph_launch(g) == US_OK && download(h, 0, b) == US_OK && b == Bytes(16, 4));
  check("a freed graph is stale", us_graph_free(g) == US_OK && us_graph_launch(g) == US_STALE && us_graph_free(g) == US_STALE && says("was freed"));
  check("and when its slot is used again", us_graph_begin() == US_OK && end(other) == US_OK && other != g && other != first && us_graph_launch(g) == US_STALE && us_graph_launch(first) == US_STALE);
  check("close and open", us_close() == US_OK && us_open(0) == US_OK && us_graph_begin() == US_OK && end(g) == US_OK);
  check("a graph from before", g != other && us_graph_launch(other) == US_STALE && us_graph_launch(g) == US_OK);
  us_graph_free(g);
  const uint32_t again = alloc(16), number = (1u << 20) - 1;  // the low bits of a handle (cuda/host/library.cpp)
  check("a handle's number serves again after a close, and is another handle", (again & number) == (h & number) && again != h);
  us_free(again);
}

// A recording keeps the scratch room that it was made with, however large the next one is.
void scratch_rooms() {
  const uint32_t h = alloc(1 << 16), wide = alloc(1 << 20);
  T w = view(h, 4096, US_U8, {256}), out = view(h, 0, US_F32, {64});
  w.dtype = US_F32, w.shape[0] = 64;
  uint32_t g = 0, keep = 0;
  Bytes before(256), after(256), zero(256, 0);
  upload(h, 4096, Bytes(256, 9));
  T more = view(wide, 4096, US_F32, {1 << 10});
  check("a room that waiting work uses outlives a larger one", upload(h, 0, zero) == US_OK && through_scratch(out, w) == US_OK &&
                                                               through_scratch(view(wide, 0, US_F32, {64}), more) == US_OK && us_fence() == US_OK);
  check("a run before", upload(h, 0, zero) == US_OK && through_scratch(out, w) == US_OK && download(h, 0, before) == US_OK);
  check("recorded", us_graph_begin() == US_OK && through_scratch(out, w) == US_OK && end(g) == US_OK);
  check("recorded again", us_graph_begin() == US_OK && through_scratch(out, w) == US_OK && end(keep) == US_OK);
  check("a larger one", through_scratch(view(wide, 0, US_F32, {64}), view(wide, 4096, US_F32, {1 << 17})) == US_OK && us_fence() == US_OK);
  check("one recording goes", us_graph_free(g) == US_OK);
  check("the other replays", upload(h, 0, zero) == US_OK && us_graph_launch(keep) == US_OK && download(h, 0, after) == US_OK && after == before);
  const uint32_t active = memory().active_lo;
  check("with the last recording the old room goes", us_graph_launch(keep) == US_OK && us_graph_free(keep) == US_OK && memory().active_lo == active);
  const size_t in_use = fake::bytes_in_use();
  check("what is counted is what is in use", in_use == active);
  us_free(h), us_free(wide);
}

// A recording that nobody frees, and the room that it was made with, go with the library.
void closes_with_a_recording() {
  const uint32_t h = alloc(4 << 20);
  T out = view(h, 0, US_F32, {64}), w = view(h, 4096, US_F32, {1 << 18}), larger = view(h, 4096, US_F32, {1 << 19});
  uint32_t g = 0;
  check("recorded in a room", through_scratch(out, w) == US_OK && us_graph_begin() == US_OK && through_scratch(out, w) == US_OK && end(g) == US_OK);
  check("and that retires", through_scratch(out, larger) == US_OK && us_graph_launch(g) == US_OK);
}

}  // namespace

void test_graphs() {
  for (fake::Schedule s : {fake::LAZY, fake::EAGER, fake::RANDOM}) {
    fake::settings.schedule = s;
    us_open(0);
    rules();
    scratch_rooms();
    closes_with_a_recording();
    check("close", us_close() == US_OK && fake::live().empty());
  }
  fake::reset();
}

void test_profile() {
  char text[64], cut[4];
  check("no profile of a closed library", us_profile_start() == US_DEVICE && us_profile_stop(text, sizeof text) == 0);
  us_open(0);
  const uint32_t h = alloc(64);
  T x = view(h, 0, US_F32, {16});
  check("start", us_profile_start() == US_OK && add(x, x, x) == US_OK && add(x, x, x) == US_OK);
  check("a line a kind", us_profile_stop(text, sizeof text) == 12 && !strcmp(text, "add\t2\t2.000\n"));
  check("a profile ends", add(x, x, x) == US_OK && us_profile_stop(cut, sizeof cut) == 0 && cut[0] == 0);
  uint32_t g = 0;
  check("nothing is marked in a recording", us_profile_start() == US_OK && us_graph_begin() == US_OK && add(x, x, x) == US_OK);
  check("and no profile stops in one", us_profile_stop(text, sizeof text) == 0 && end(g) == US_OK && us_graph_free(g) == US_OK);
  check("then it stops", us_profile_stop(cut, sizeof cut) == 0 && us_profile_start() == US_OK);
  check("close ends a profile", us_close() == US_OK && fake::live().empty());
  us_open(0), us_profile_stop(text, sizeof text), us_close();
}
