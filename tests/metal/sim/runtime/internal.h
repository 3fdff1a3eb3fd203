// What the runtime's files share: fibers, simdgroups, workers.
#pragma once
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

#ifdef MSL_TSAN  // kernels built with -fsanitize=thread: every GPU thread is a TSan fiber, ordered by barriers alone
void *__tsan_create_fiber(unsigned), *__tsan_get_current_fiber(void);
void __tsan_destroy_fiber(void*), __tsan_switch_to_fiber(void*, unsigned), __tsan_acquire(void*), __tsan_release(void*);
#define TSAN(x) x
#else
#define TSAN(x)
#endif

enum { STACK = 128 * 1024, MAX_SLOTS = 128, MAX_THREADS = 1024 };

typedef struct fiber {
  void *tsan, *sp;
  unsigned index, done;
  const char* at;  // where it waits
  MslIds ids;
} fiber;

// Masks are of lanes.
typedef struct {
  uint32_t ready, waiting_simd, live, arrived;
  unsigned gen;
  const char* op;
  void (*combine)(void*, unsigned);
  _Alignas(64) char slots[2][MSL_SIMD][MSL_SLOT];
  uint32_t mask[2];
} simdgroup;

// Runs one threadgroup at a time.
typedef struct worker {
  void *main_sp, *main_tsan;
  char bar;  // its address stands for the barrier in TSan's order
  fiber *fib, *cur;
  simdgroup* sgs;
  unsigned nthreads, nsg, live, at_barrier;
  char* stacks;
  const MslKernel* k;
  const MslLaunch* l;
  struct { void* p; unsigned size, cap; } slot[MAX_SLOTS];
  uint64_t rng;
  unsigned long switches;
  char err[256];
  int failed;
} worker;

extern __thread worker* W;
extern int msl_order, msl_poison;
extern unsigned msl_seed;

void msl_switch(void** save, void* load);
void* msl_frame(char* top, void (*entry)(void));
void msl_fail(worker* w, const char* fmt, ...);
unsigned msl_pick(worker* w, uint32_t mask, unsigned after);
void msl_fiber_main(void);
