// Host slots: the copies run beside the computation, in any order that the events allow, and inside recordings; what is
// fetched is what was stashed all the same. The program is a decoder's: inputs take turns in two buffers, and the backward
// finds each where it was.
#include "host.h"

namespace {

constexpr uint32_t LAYERS = 7, COUNT = 24, BYTES = 4 * COUNT;

int32_t add(T out, T a, T b) {
  us_add_args args{out, a, b};
  return us_add(&args);
}
int32_t place(uint32_t slot, uint64_t bytes) {
  us_host_slot_args a{slot, static_cast<uint32_t>(bytes), static_cast<uint32_t>(bytes >> 32)};
  return us_host_slot(&a);
}
int32_t stash(uint32_t slot, T x) {
  us_stash_args a{slot, x};
  return us_stash(&a);
}
int32_t fetch(T out, uint32_t slot) {
  us_fetch_args a{out, slot};
  return us_fetch(&a);
}
int32_t wait(uint32_t slot) {
  us_slot_wait_args a{slot};
  return us_slot_wait(&a);
}
int32_t end(uint32_t& graph) {
  us_graph_end_args a{};
  const int32_t rc = us_graph_end(&a);
  return graph = a.graph, rc;
}
Bytes numbers(uint32_t first) {
  Bytes b(BYTES);
  for (uint32_t i = 0; i < COUNT; i++) reinterpret_cast<uint32_t*>(b.data())[i] = first + 3 * i;
  return b;
}
Bytes times(const Bytes& x, uint32_t n) {
  Bytes b = x;
  for (uint32_t i = 0; i < COUNT; i++) reinterpret_cast<uint32_t*>(b.data())[i] *= n;
  return b;
}

/** Views of one allocation: the start, two buffers, the end, the sum, scratch. */
struct Memory {
  uint32_t h = alloc(6 * 256);
  T at(uint32_t i) const { return view(h, 256 * i, US_I32, {COUNT}); }
  T buffer(uint32_t n) const { return at(1 + n % 2); }
};

/** x0 = start, x_{n+1} = 2 x_n; then sum = x_{L-1} + ... + x_0, each x_n found in its buffer again. */
bool pass(const Memory& m) {
  bool ok = true;
  auto must = [&](int32_t rc) { ok = ok && rc == US_OK; };
  us_copy_args copy{m.buffer(0), m.at(0)};
  us_fill_args zero{m.at(4), 0, 0};
  must(us_copy(&copy)), must(us_fill(&zero));
  for (uint32_t n = 0; n < LAYERS; n++) {
    if (n >= 1 && n - 1 + 2 < LAYERS) must(wait(n - 1));
    if (n + 2 < LAYERS) must(stash(n, m.buffer(n)));
    must(add(m.at(5), m.buffer(n), m.buffer(n)));
    us_copy_args out{n + 1 < LAYERS ? m.buffer(n + 1) : m.at(3), m.at(5)};
    must(us_copy(&out));
  }
  for (uint32_t n = LAYERS; n-- > 0;) {
    if (n + 2 < LAYERS) must(wait(n));
    must(add(m.at(4), m.at(4), m.buffer(n)));
    if (n >= 2) must(fetch(m.buffer(n), n - 2));
  }
  return ok;
}
bool sum_is(const Memory& m, const Bytes& want) {
  Bytes found(BYTES);
  return download(m.h, 4 * 256, found) == US_OK && found == want;
}

void passes() {
  const Memory m;
  constexpr uint32_t ALL = (1u << LAYERS) - 1;
  for (uint32_t n = 0; n + 2 < LAYERS; n++) check("placed", place(n, BYTES) == US_OK);
  for (uint32_t from : {5u, 900u}) {
    check("a pass", upload(m.h, 0, numbers(from)) == US_OK && pass(m) && sum_is(m, times(numbers(from), ALL)));
  }
  check("two passes without a look between", pass(m) && pass(m) && sum_is(m, times(numbers(900), ALL)));
  uint32_t g = 0;
  check("a pass and at once a recording", pass(m) && us_graph_begin() == US_OK && pass(m) && end(g) == US_OK);
  for (uint32_t from : {7u, 40u}) {
    check("a replay", upload(m.h, 0, numbers(from)) == US_OK && us_graph_launch(g) == US_OK && sum_is(m, times(numbers(from), ALL)));
  }
  check("replays and a pass, one after the other", us_graph_launch(g) == US_OK && pass(m) && us_graph_launch(g) == US_OK && sum_is(m, times(numbers(40), ALL)));
  check("a slot that a recording copies to is given back: it stays until the recording goes", place(0, 0) == US_OK && us_graph_launch(g) == US_OK && us_fence() == US_OK);
  check("and is placed again", place(0, BYTES) == US_OK && us_graph_free(g) == US_OK && place(0, 0) == US_OK && place(0, BYTES) == US_OK);
  check("memory goes while a copy to it is under way", pass(m) && stash(0, m.at(4)) == US_OK && fetch(m.at(5), 0) == US_OK && us_free(m.h) == US_OK);
  for (uint32_t n = 0; n + 2 < LAYERS; n++) check("given back", place(n, 0) == US_OK);
}

/** A product that waits for company writes what is stashed, and another one reads what is fetched over. */
Bytes held_back(bool hopper) {
  fake::settings.hopper = hopper;
  us_open(0);
  const uint32_t h = alloc(48 << 10);
  Bytes start(48 << 10), out(48 << 10);
  for (size_t i = 0; i < start.size(); i++) start[i] = static_cast<uint8_t>(i * 5 + i / 200);
  T x = view(h, 0, US_BF16, {16, 72}), w = view(h, 4096, US_BF16, {72, 72}), y = view(h, 32768, US_BF16, {16, 72}), z = view(h, 40960, US_BF16, {16, 72});
  us_matmul_args first{y, x, w, {}, 0, 1, 1, 0}, second{z, x, w, {}, 0, 1, 1, 0};
  us_fill_args fill{y, 0, 0};
  bool ok = place(1, 2304) == US_OK && upload(h, 0, start) == US_OK;
  ok = ok && us_matmul(&first) == US_OK && stash(1, y) == US_OK && wait(1) == US_OK && us_fill(&fill) == US_OK;
  ok = ok && us_matmul(&second) == US_OK && fetch(x, 1) == US_OK && wait(1) == US_OK && download(h, 0, out) == US_OK;
  check("products that wait and slots", ok && us_close() == US_OK);
  return out;
}

void rules() {
  const uint32_t h = alloc(1024);
  T x = view(h, 0, US_I32, {16}), wide = view(h, 256, US_I32, {64});
  uint32_t g = 0;
  check("nothing placed", stash(3, x) == US_STALE && says("slot 3 of host memory: nothing was placed") && fetch(x, 3) == US_STALE && wait(3) == US_STALE);
  check("no such slot", place(4096, 16) == US_INVALID && says("numbered below 4096") && wait(0xffffffff) == US_STALE);
  check("place", place(3, 64) == US_OK && place(3, 64) == US_BUSY && says("slot 3: it is taken"));
  check("too small", stash(3, wide) == US_INVALID && says("Cannot stash 256 bytes in slot 3: it has 64"));
  check("nothing stashed", fetch(x, 3) == US_INVALID && says("Cannot fetch 64 bytes from slot 3: it holds 0"));
  check("a wait for nothing", wait(3) == US_OK);
  check("a freed tensor", stash(3, view(h + 1, 0, US_I32, {16})) == US_STALE && fetch(view(h + 1, 0, US_I32, {16}), 3) == US_STALE);
  check("not in a recording", us_graph_begin() == US_OK && place(4, 64) == US_BUSY && says("while a graph is being recorded") && place(3, 0) == US_BUSY);
  check("a copy that nothing waited for comes back at the end", stash(3, x) == US_OK && end(g) == US_OK && us_graph_launch(g) == US_OK && us_graph_free(g) == US_OK);
  check("a stash in a recording, a fetch after it", wait(3) == US_OK && fetch(x, 3) == US_OK && us_fence() == US_OK);
  Bytes seen(64), marked(64, 7);
  us_fill_args fill{x, 0, 0};
  check("a transfer sees what was fetched, and a wait in a recording what was stashed before it",
        upload(h, 0, marked) == US_OK && stash(3, x) == US_OK && wait(3) == US_OK && us_fill(&fill) == US_OK && fetch(x, 3) == US_OK &&
            download(h, 0, seen) == US_OK && seen == marked && stash(3, x) == US_OK && us_graph_begin() == US_OK && wait(3) == US_OK &&
            us_fill(&fill) == US_OK && end(g) == US_OK && us_graph_launch(g) == US_OK && us_graph_free(g) == US_OK);
  check("giving back twice", place(3, 0) == US_OK && place(3, 0) == US_OK && stash(3, x) == US_STALE);
  const size_t all = fake::settings.devices[0].bytes;
  check("a slot that a recording holds, given back before closing", place(6, 64) == US_OK && us_graph_begin() == US_OK && stash(6, x) == US_OK && end(g) == US_OK && place(6, 0) == US_OK);
  check("pinned memory is not the device's", place(5, 1 << 20) == US_OK && memory().active_lo == 1024 && all > 0);
}

/** Placing host memory fails at each of its calls, and is asked for again while the library is open. */
void second_try() {
  for (long call = 1; call <= 5; call++) {
    us_open(0);
    const uint32_t h = alloc(64);
    T x = view(h, 0, US_I32, {16});
    us_fence();
    fake::settings.fail_at = call;
    check("placing fails", place(0, 64) == US_DEVICE && says("invalid argument"));
    check("and works when it is tried again", place(0, 64) == US_OK && stash(0, x) == US_OK && fetch(x, 0) == US_OK && us_close() == US_OK);
  }
}

}  // namespace

void test_offload() {
  fake::reset();
  second_try();
  us_slot_wait_args closed{0};
  check("closed", us_slot_wait(&closed) == US_DEVICE);
  for (uint64_t n = 0; n < 40; n++) {
    fake::settings.schedule = n == 0 ? fake::LAZY : n == 1 ? fake::EAGER : fake::RANDOM;
    fake::settings.hopper = n % 2 == 0;
    fake::seed(n);
    us_open(0);
    passes();
    if (n < 3) rules();
    check("close gives slots, events and the stream back", us_close() == US_OK && fake::live().empty());
    check("held back or at once", held_back(true) == held_back(false));
  }
  fake::reset();
}
