// Spreads the threadgroups of a launch over worker threads, which stay for the next launch, as do their fibers' stacks.
#include "internal.h"

#include <pthread.h>
#include <sys/mman.h>

enum { MAX_WORKERS = 64 };
typedef struct {
  const MslKernel* k;
  const MslLaunch* l;
  MslU3 grid, tg, threads;
  int exact, failed;
  unsigned next, total, cap;
  char* err;
  pthread_mutex_t mu;
} job;

static int workers_wanted = 1, workers_started = 1;
static worker* pool[MAX_WORKERS];
static unsigned long all_switches;
// The job in hand: helpers below `helpers` run it when `round` changes, and count themselves out.
static pthread_mutex_t hand = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t start = PTHREAD_COND_INITIALIZER, finish = PTHREAD_COND_INITIALIZER;
static job* current;
static unsigned round_number, helpers, running;

void msl_set_workers(int n) { workers_wanted = n < 1 ? 1 : n > MAX_WORKERS ? MAX_WORKERS : n; }
unsigned long msl_switches(void) { return all_switches; }

static worker* new_worker(void) {
  worker* w = aligned_alloc(64, (sizeof *w + 63) & ~63ul);
  memset(w, 0, sizeof *w);
  w->fib = calloc(MAX_THREADS, sizeof *w->fib);
  w->sgs = aligned_alloc(64, MAX_THREADS / 32 * sizeof *w->sgs);
  w->stacks = mmap(0, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return w;
}

static void set_up(worker* w, const job* j, MslU3 g) {
  MslU3 t = j->tg;
  if (j->exact) {  // dispatchThreads: the edge threadgroups are smaller
    if ((g.x + 1) * t.x > j->threads.x) t.x = j->threads.x - g.x * t.x;
    if ((g.y + 1) * t.y > j->threads.y) t.y = j->threads.y - g.y * t.y;
    if ((g.z + 1) * t.z > j->threads.z) t.z = j->threads.z - g.z * t.z;
  }
  const unsigned n = t.x * t.y * t.z, nsg = (n + 31) / 32;
  w->nthreads = w->live = n, w->nsg = nsg, w->at_barrier = 0;
  for (unsigned i = 0; i < MAX_SLOTS; ++i) w->slot[i].size = 0;
  for (unsigned i = 0; i < nsg; ++i) {
    simdgroup* s = &w->sgs[i];
    const unsigned c = n - i * 32;
    s->live = s->ready = c >= 32 ? ~0u : (1u << c) - 1;
    s->waiting_simd = s->arrived = s->gen = 0;
    s->op = 0;
  }
  for (unsigned i = 0; i < n; ++i) {
    fiber* f = &w->fib[i];
    const MslU3 p = {i % t.x, i / t.x % t.y, i / t.x / t.y};
    f->index = i, f->at = 0, f->done = 0;
    f->ids = (MslIds){.tpitg = p, .tgpig = g, .tptg = t, .dtptg = j->tg, .tgpg = j->grid, .tpg = j->threads,
                      .tpig = {g.x * j->tg.x + p.x, g.y * j->tg.y + p.y, g.z * j->tg.z + p.z},
                      .titg = i, .lane = i % 32, .sg = i / 32, .nsg = nsg, .tpsg = 32};
    f->sp = msl_frame(w->stacks + (size_t)(i + 1) * STACK - (i * 832u) % 16384, msl_fiber_main);  // spread over cache sets
  }
}

static void report_deadlock(worker* w) {
  char where[160];
  int o = 0;
  for (unsigned i = 0, shown = 0; i < w->nthreads && shown < 3; ++i) {
    const fiber* f = &w->fib[i];
    if (!f->done && f->at && (!shown || f->at != w->fib[i - 1].at)) {
      o += snprintf(where + o, sizeof where - o, "%sthread %u in %s", shown++ ? ", " : "", i, f->at);
    }
  }
  msl_fail(w, "deadlock: threads wait for each other at different places (%s)", where);
}

static void run_group(worker* w, const job* j, unsigned at) {
  set_up(w, j, (MslU3){at % j->grid.x, at / j->grid.x % j->grid.y, at / j->grid.x / j->grid.y});
  w->rng = ((uint64_t)msl_seed << 32) ^ (at * 0x9e3779b97f4a7c15ull) ^ 0x1234567;
  while (w->live && !w->failed) {
    w->cur = 0;
    for (unsigned i = 0; i < w->nsg && !w->cur; ++i) {
      const unsigned s = msl_order == 1 ? w->nsg - 1 - i : i;
      if (w->sgs[s].ready) w->cur = &w->fib[s * 32 + msl_pick(w, w->sgs[s].ready, msl_order == 1 ? 0 : 31)];
    }
    if (!w->cur) {
      report_deadlock(w);
      break;
    }
    TSAN(w->main_tsan = __tsan_get_current_fiber(); __tsan_release(&w->main_sp); __tsan_switch_to_fiber(w->cur->tsan, 1);)
    msl_switch(&w->main_sp, w->cur->sp);
    TSAN(__tsan_acquire(&w->main_sp);)
  }
}

static void work(worker* w, job* j) {
  W = w;
  w->k = j->k, w->l = j->l, w->failed = 0, w->switches = 0;
  TSAN(for (unsigned i = 0; i < j->tg.x * j->tg.y * j->tg.z; ++i) w->fib[i].tsan = __tsan_create_fiber(0);)
  while (!j->failed && !w->failed) {
    const unsigned g = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
    if (g >= j->total) break;
    run_group(w, j, msl_order == 1 ? j->total - 1 - g : g);
  }
  pthread_mutex_lock(&j->mu);
  all_switches += w->switches;
  if (w->failed && !j->failed) j->failed = 1, snprintf(j->err, j->cap, "%s: %s", j->k->name, w->err);
  pthread_mutex_unlock(&j->mu);
  TSAN(for (unsigned i = 0; i < j->tg.x * j->tg.y * j->tg.z; ++i) __tsan_destroy_fiber(w->fib[i].tsan);)
}

static void* help(void* arg) {
  const unsigned me = (unsigned)(uintptr_t)arg;
  unsigned seen = 0;
  pthread_mutex_lock(&hand);
  for (;;) {
    while (round_number == seen || me > helpers) {
      if (round_number != seen) seen = round_number;
      pthread_cond_wait(&start, &hand);
    }
    seen = round_number;
    job* j = current;
    pthread_mutex_unlock(&hand);
    work(pool[me], j);
    pthread_mutex_lock(&hand);
    if (--running == 0) pthread_cond_signal(&finish);
  }
}

// What a launch binds, held against what the kernel declares. 0, or -1 with the message.
static int check_arguments(const MslKernel* k, const MslLaunch* l, char* err, unsigned cap) {
  for (unsigned i = 0; i < k->nargs; ++i) {
    const MslArg* a = &k->args[i];
    const unsigned long have = l->buflen[a->index];
    if (!l->buf[a->index]) return snprintf(err, cap, "%s: buffer %u (%s) is not bound", k->name, a->index, a->name), -1;
    if (a->kind == 'c' && a->size && have && have < a->size) {
      return snprintf(err, cap, "%s: buffer %u (%s) has %lu bytes, the shader reads %u", k->name, a->index, a->name, have, a->size), -1;
    }
  }
  return 0;
}

int msl_dispatch(const MslKernel* k, const MslLaunch* l, MslU3 grid, MslU3 tg, int exact, char* err, unsigned cap) {
  job j = {.k = k, .l = l, .tg = tg, .exact = exact, .err = err, .cap = cap, .mu = PTHREAD_MUTEX_INITIALIZER};
  const unsigned long n = (unsigned long)tg.x * tg.y * tg.z;
  if (!n || n > k->max_threads) {
    return snprintf(err, cap, "%s: %lu threads in a threadgroup, at most %u", k->name, n, k->max_threads), -1;
  }
  if (check_arguments(k, l, err, cap)) return -1;
  j.grid = exact ? (MslU3){(grid.x + tg.x - 1) / tg.x, (grid.y + tg.y - 1) / tg.y, (grid.z + tg.z - 1) / tg.z} : grid;
  j.threads = exact ? grid : (MslU3){grid.x * tg.x, grid.y * tg.y, grid.z * tg.z};
  j.total = j.grid.x * j.grid.y * j.grid.z;
  // Waking a helper costs as much as some hundred GPU threads.
  unsigned wanted = (unsigned)workers_wanted < j.total ? (unsigned)workers_wanted : j.total;
  if (j.total * n < 1024) wanted = 1;
  if (!pool[0]) pool[0] = new_worker();
  for (; workers_started < (int)wanted; workers_started++) {
    pthread_t t;
    pool[workers_started] = new_worker();
    pthread_create(&t, 0, help, (void*)(uintptr_t)workers_started);
    pthread_detach(t);
  }
  if (wanted > 1) {
    pthread_mutex_lock(&hand);
    current = &j, helpers = running = wanted - 1, round_number++;
    pthread_cond_broadcast(&start);
    pthread_mutex_unlock(&hand);
  }
  work(pool[0], &j);
  if (wanted > 1) {
    pthread_mutex_lock(&hand);
    while (running) pthread_cond_wait(&finish, &hand);
    helpers = 0;
    pthread_mutex_unlock(&hand);
  }
  return j.failed ? -1 : 0;
}
