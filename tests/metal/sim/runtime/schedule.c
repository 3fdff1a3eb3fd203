// Barriers and simdgroup operations as rendezvous of fibers, in an order of our choosing. A lane that never comes, lanes
// that meet at different operations, and threads that return while others wait are reported.
#include "internal.h"

__thread worker* W;
int msl_order, msl_poison = 1, msl_removed;
unsigned msl_seed = 1;

void msl_set_schedule(int order, unsigned seed) { msl_order = order, msl_seed = seed; }
void msl_set_poison(int on) { msl_poison = on; }
__attribute__((constructor)) static void read_removed(void) {
  const char* line = getenv("MSL_REMOVED");
  if (line) msl_removed = atoi(line);
}
unsigned msl_lane(void) { return W->cur->index % 32; }

void msl_fail(worker* w, const char* fmt, ...) {
  if (w->failed) return;
  w->failed = 1;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(w->err, sizeof w->err, fmt, ap);
  va_end(ap);
}

// The lane to run next of those in mask.
unsigned msl_pick(worker* w, uint32_t mask, unsigned after) {
  if (msl_order == 0) {
    const uint32_t hi = after < 31 ? mask & (~0u << (after + 1)) : 0;
    return __builtin_ctz(hi ? hi : mask);
  }
  if (msl_order == 1) {
    const uint32_t lo = mask & ((1u << after) - 1);
    return 31 - __builtin_clz(lo ? lo : mask);
  }
  w->rng = w->rng * 6364136223846793005ull + 1442695040888963407ull;
  unsigned n = (unsigned)(w->rng >> 33) % (unsigned)__builtin_popcount(mask);
  while (n--) mask &= mask - 1;
  return __builtin_ctz(mask);
}

// Leaves the current fiber for another runnable one, or for the worker when none is (all done, or a deadlock).
static void yield(worker* w) {
  fiber* me = w->cur;
  const unsigned s = me->index / 32, lane = me->index % 32;
  void* to = w->main_sp;
  ++w->switches;
  w->cur = 0;
  const unsigned first = msl_order == 2 ? (unsigned)(w->rng >> 40) : s + 1;
  for (unsigned i = 0; i <= w->nsg && !w->cur; ++i) {
    // this simdgroup first, then the others
    const unsigned t = i == 0 ? s : msl_order == 1 ? (s + w->nsg - i) % w->nsg : (first + i - 1) % w->nsg;
    if (!w->sgs[t].ready) continue;
    w->cur = &w->fib[t * 32 + msl_pick(w, w->sgs[t].ready, i == 0 ? lane : msl_order == 1 ? 0 : 31)];
    to = w->cur->sp;
  }
  TSAN(__tsan_switch_to_fiber(w->cur ? w->cur->tsan : w->main_tsan, 1);)
  msl_switch(&me->sp, to);
}

static void finish_simd(simdgroup* g) {
  const unsigned p = g->gen & 1;
  g->mask[p] = g->arrived;
  if (g->combine) g->combine(g->slots[p], g->arrived);
  g->ready |= g->waiting_simd;
  g->waiting_simd = g->arrived = 0;
  g->op = 0;
  ++g->gen;
}

void msl_fiber_main(void) {
  worker* w = W;
  fiber* f = w->cur;
  TSAN(__tsan_acquire(&w->main_sp);)
  w->k->entry(w->l, &f->ids);
  TSAN(__tsan_release(&w->main_sp);)
  w = W;
  simdgroup* g = &w->sgs[f->index / 32];
  g->live &= ~(1u << (f->index % 32));
  g->ready &= ~(1u << (f->index % 32));
  f->done = 1;
  --w->live;
  if (g->arrived && g->arrived == g->live) finish_simd(g);  // a lane that has returned takes no part
  if (w->at_barrier && w->at_barrier == w->live) msl_fail(w, "a thread returned while others wait at threadgroup_barrier");
  yield(w);
  abort();
}

void msl_barrier(void) {
  worker* w = W;
  fiber* f = w->cur;
  f->at = "threadgroup_barrier";
  TSAN(__tsan_release(&w->bar);)
  if (++w->at_barrier == w->live) {
    w->at_barrier = 0;
    for (unsigned i = 0; i < w->nsg; ++i) w->sgs[i].ready = w->sgs[i].live;
  } else {
    w->sgs[f->index / 32].ready &= ~(1u << (f->index % 32));
    yield(w);
  }
  TSAN(__tsan_acquire(&w->bar);)
  f->at = 0;
}

void* msl_simd_begin(void) {
  fiber* f = W->cur;
  simdgroup* g = &W->sgs[f->index / 32];
  return g->slots[g->gen & 1][f->index % 32];
}

void* msl_simd_end(const char* op, void (*combine)(void*, unsigned), unsigned* mask) {
  worker* w = W;
  fiber* f = w->cur;
  const unsigned lane = f->index % 32;
  simdgroup* g = &w->sgs[f->index / 32];
  const unsigned p = g->gen & 1;
  if (g->op && g->op != op && strcmp(g->op, op)) {
    msl_fail(w, "simdgroup diverges: lane %u in %s, others in %s", lane, op, g->op);
  }
  g->op = op;
  TSAN(const int bar = !strcmp(op, "simdgroup_barrier"); if (bar) __tsan_release(&g->op);)
  g->combine = combine;
  g->arrived |= 1u << lane;
  if (g->arrived == g->live) {
    finish_simd(g);
  } else {
    f->at = op;
    g->waiting_simd |= 1u << lane;
    g->ready &= ~(1u << lane);
    yield(w);
    f->at = 0;
  }
  TSAN(if (bar) __tsan_acquire(&g->op);)
  if (mask) *mask = g->mask[p];
  return g->slots[p];
}

void* msl_tg_slot(unsigned id, unsigned size) {
  worker* w = W;
  if (id >= MAX_SLOTS) abort();
  if (w->slot[id].cap < size || !w->slot[id].p) {
#ifdef MSL_TSAN  // malloc and memset would count as writes of the first thread to come
    static _Alignas(64) char arena[MAX_SLOTS][32768];
    w->slot[id].p = arena[id];
#else
    free(w->slot[id].p);
    w->slot[id].p = aligned_alloc(16, (size + 15) & ~15u);
#endif
    w->slot[id].cap = size;
    w->slot[id].size = 0;
  }
  if (!w->slot[id].size) {  // first thread of this threadgroup to get here
    if (msl_poison) {
      for (unsigned i = 0; i < size; ++i) {
        ((char*)w->slot[id].p)[i] = (char)0xff;
        TSAN(__asm__ volatile("" ::: "memory");)
      }
    }
    w->slot[id].size = size;
  }
  return w->slot[id].p;
}
