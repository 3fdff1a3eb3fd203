// Products that wait against the same products run at once: random programs on a fake Hopper, and on one where nothing is
// held back. Statuses, downloads and the whole arena must be the same to the bit; sim/kernels.cpp says why they can be.
#include "program.h"

namespace {

struct Trace { std::vector<int32_t> statuses; std::vector<Bytes> downloads; long launches = 0; };

/** Runs a program. At once: no products are held back, and launches of the recording run its operations. */
Trace run(const Program& p, uint64_t number, bool at_once) {
  fake::reset();
  fake::settings.hopper = !at_once;
  fake::settings.schedule = at_once ? fake::EAGER : number % 2 ? fake::LAZY : fake::RANDOM;
  Trace trace;
  check("open", us_open(0) == US_OK);
  const uint32_t arena = alloc(ARENA);
  Bytes start(ARENA), out;
  fake::seed(number);
  for (uint8_t& b : start) b = static_cast<uint8_t>(fake::random());
  auto status = [&](int32_t rc) { trace.statuses.push_back(rc); };
  status(upload(arena, 0, start));
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    us_host_slot_args place{slot, SLOT_BYTES, 0};
    us_stash_args stash{slot, view(arena, slot * 4096, US_U8, {SLOT_BYTES})};
    us_slot_wait_args wait{slot};
    status(us_host_slot(&place)), status(us_stash(&stash)), status(us_slot_wait(&wait));
  }
  for (const Step& s : p.body) status(run_step(s, arena, out));
  us_graph_end_args graph{};
  if (!at_once) {
    bool recorded = us_graph_begin() == US_OK;
    for (const Step& s : p.body) recorded = recorded && run_step(s, arena, out) == US_OK;
    recorded = us_graph_end(&graph) == US_OK && recorded;
    check("program " + std::to_string(number) + " is recorded", recorded);
  }
  for (const Step& s : p.rest) {
    if (s.kind == Step::LAUNCH && at_once) {
      int32_t rc = US_OK;
      for (const Step& b : p.body) rc = rc ? rc : run_step(b, arena, out);
      status(rc);
    } else {
      status(s.kind == Step::LAUNCH ? us_graph_launch(graph.graph) : run_step(s, arena, out));
    }
    if (s.kind == Step::DOWNLOAD) trace.downloads.push_back(out);
  }
  out.resize(ARENA);
  status(download(arena, 0, out));
  trace.downloads.push_back(out);
  check("close", us_close() == US_OK);
  return trace;
}

void tell(const Program& p) {
  for (const Step& s : p.body) printf("  body %s\n", s.text().c_str());
  for (const Step& s : p.rest) printf("  %s\n", s.text().c_str());
}

}  // namespace

void test_pending(uint64_t first, uint64_t programs) {
  uint64_t wrong = 0, operations = 0;
  for (uint64_t n = first; n < first + programs && wrong < 3; n++) {
    const Program p = make_program(n);
    fake::going_on = "program " + std::to_string(n);
    if (programs == 1) tell(p);
    const Trace waited = run(p, n, false), direct = run(p, n, true);
    const bool same = waited.statuses == direct.statuses && waited.downloads == direct.downloads;
    operations += direct.statuses.size();
    check("program " + std::to_string(n) + " gives the same held back and at once", same);
    if (!same) {
      wrong++;
      for (size_t i = 0; i < direct.statuses.size(); i++)
        if (waited.statuses[i] != direct.statuses[i]) printf("  status %zu: %d, at once %d\n", i, waited.statuses[i], direct.statuses[i]);
      const Bytes &a = waited.downloads.back(), &b = direct.downloads.back();
      size_t i = 0;
      while (i < a.size() && a[i] == b[i]) i++;
      printf("  first difference in the arena: %zu\n", i);
    }
  }
  printf("pending: %llu programs, %llu calls\n", static_cast<unsigned long long>(programs), static_cast<unsigned long long>(operations));
  fake::reset();
}
