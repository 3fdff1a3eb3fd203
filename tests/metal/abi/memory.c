// Memory: what is counted, the limit, the cache of freed buffers, and files as memory.
#include <unistd.h>

#include "abi.h"

static us_memory_args memory(void) {
  us_memory_args m;
  check("memory", us(memory)(&m) == US_OK);
  return m;
}

static void test_counts(void) {
  const us_memory_args before = memory();
  T x = tensor(US_U8, 1 << 20, 0, 0, 0);
  check("bytes in use", memory().active_lo == before.active_lo + (1 << 20));
  let_go(x);
  check("bytes given back, peak kept", memory().active_lo == before.active_lo && memory().peak_lo >= 1 << 20);
  us_alloc_args huge = {0, 64, 7};
  check("more than the limit is refused", us(alloc)(&huge) == US_MEMORY && huge.handle == 0 && says("may hold"));
  enum { MANY = 3000 };
  static T many[MANY];
  bool distinct = true;
  for (int i = 0; i < MANY; i++) many[i] = tensor(US_F32, 1, 0, 0, 0), distinct = distinct && (!i || many[i].handle != many[i - 1].handle);
  for (int i = 0; i < MANY; i += 2) let_go(many[i]);
  for (int i = 0; i < MANY; i += 2) many[i] = tensor(US_F32, 1, 0, 0, 0);
  for (int i = 0; i < MANY; i++) distinct = distinct && us(free)(many[i].handle) == US_OK;
  check("thousands of handles", distinct && memory().active_lo == before.active_lo);
}

static uint64_t cached(uint32_t keep) {
  us_cache_args c = {keep, keep == ~0u ? ~0u : 0, 7, 7};
  check("cache", us(cache)(&c) == US_OK);
  return (uint64_t)c.cached_hi << 32 | c.cached_lo;
}

static void test_cache(void) {
  const us_memory_args before = memory();
  cached(0);
  T x = tensor(US_F32, 1 << 18, 0, 0, 0);
  put(x, 3), us(free)(x.handle);
  check("freed memory is kept, and not in use", cached(~0u) == 1 << 20 && memory().active_lo == before.active_lo);
  T y = tensor(US_F32, (1 << 18) - 99, 0, 0, 0);
  check("and given out again", cached(~0u) == 0 && all_are(y, 3) && memory().active_lo == before.active_lo + (1 << 20));
  us_add_args past = {y, y, y};
  past.out.shape[0] = past.a.shape[0] = past.b.shape[0] = 1 << 18;
  check("but no more of it than was asked for", us(add)(&past) == US_INVALID);
  T z = tensor(US_F32, (1 << 18) - 99, 0, 0, 0);
  us_add_args add = {z, y, y};
  check("add", us(add)(&add) == US_OK);
  us(free)(y.handle);
  T again = tensor(US_F32, (1 << 18) - 99, 0, 0, 0);
  put(again, 8);
  check("what is in flight reads what it had", all_are(z, 6) && all_are(again, 8));
  us(free)(again.handle), us(free)(z.handle);
  T small = tensor(US_F32, 100, 0, 0, 0);
  check("not to something much smaller", cached(~0u) > 2 << 19);
  us(free)(small.handle);
  check("the oldest goes first", cached(1100000) == ((1 << 18) - 99) * 4 + 400);
  check("all goes when none may stay", cached(0) == 0);
  check("the peak starts again", memory().peak_lo > memory().active_lo && us(peak_reset)() == US_OK && memory().peak_lo == memory().active_lo);
}

// With FAKE_METAL_BYTES=4000000: 3.6 MB may be held, and 450 KB of them in the cache.
static void test_limit(void) {
  T big = tensor(US_U8, 500000, 0, 0, 0), x = tensor(US_U8, 300000, 0, 0, 0), y = tensor(US_U8, 300000, 0, 0, 0);
  us(free)(big.handle);
  check("what is larger than the cache is not kept", cached(~0u) == 0);
  us(free)(x.handle), us(free)(y.handle);
  check("nor more than it holds", cached(~0u) == 300000);
  us_alloc_args all = {3600000, 0, 0};
  check("the limit is in bytes", us(alloc)(&all) == US_MEMORY);
  us_alloc_args most = {2999999, 0, 0}, little = {600001, 0, 0};
  check("the cache makes way", us(alloc)(&most) == US_OK && us(alloc)(&little) == US_OK && cached(~0u) == 0);
  us(free)(most.handle), us(free)(little.handle), us(close)();
  exit(0);
}

static bool mapped(const char* path) {
  char line[600];
  bool found = false;
  FILE* f = fopen("/proc/self/maps", "r");
  while (f && fgets(line, sizeof line, f)) found = found || strstr(line, path);
  if (f) fclose(f);
  return found;
}

static void test_map(void) {
  enum { COUNT = 20000, FIRST = 1025, USED = 9000 };
  char path[] = "/tmp/abi_test_XXXXXX";
  const int fd = mkstemp(path);
  float* v = malloc(COUNT * 4);
  for (int i = 0; i < COUNT; i++) v[i] = i >= FIRST && i < FIRST + USED ? 21 : (float)NAN;
  check("writes a file", fd >= 0 && write(fd, v, COUNT * 4) == COUNT * 4);
  const us_memory_args before = memory();
  us_map_args m = {FIRST * 4, 0, USED * 4, 0, 0, 0};
  check("maps a file", us(map)(&m, path) == US_OK && m.handle != 0 && mapped(path));
  check("counts its pages", memory().active_lo >= before.active_lo + USED * 4);
  T x = {.handle = m.handle, .dtype = US_F32, .ndim = 1, .off_lo = m.skip, .shape = {USED, 1, 1, 1}}, y = tensor(US_F32, USED, 0, 0, 0);
  check("reads it", all_are(x, 21));
  us_add_args add = {y, x, x}, into = {x, y, y};
  check("the GPU reads it", us(add)(&add) == US_OK && all_are(y, 42));
  check("no operation writes to it", us(add)(&into) == US_INVALID && says("read only"));
  us_fill_args fill = {x, 0, 0};
  us_upload_args up = {x.handle, x.off_lo, 0, 4, 0};
  check("nor a fill, nor an upload", us(fill)(&fill) == US_INVALID && us(upload)(&up, v) == US_INVALID && says("read only"));
  add.a.shape[0] = add.b.shape[0] = USED + 1;
  check("a tensor past the range is refused", us(add)(&add) == US_INVALID);
  add = (us_add_args){y, x, y};
  check("add", us(add)(&add) == US_OK && us(free)(x.handle) == US_OK);
  check("freed while in use it stays until then", mapped(path) && all_are(y, 63) && !mapped(path));
  check("and is not kept", memory().active_lo == before.active_lo + USED * 4 && us(free)(x.handle) == US_STALE);
  us_map_args far = {0, 0, COUNT * 4 + 1, 0, 7, 7}, none = {0}, wraps = {~0u, ~0u, 8, 0, 7, 7};
  check("more than the file has is refused", us(map)(&far, path) == US_INVALID && far.handle == 0 && says("has fewer"));
  check("so is nothing, and what overflows", us(map)(&none, path) == US_INVALID && us(map)(&wraps, path) == US_INVALID);
  check("no file is no memory", us(map)(&m, "/nowhere/at/all") == US_INVALID && says("cannot be opened"));
  m = (us_map_args){0, 0, COUNT * 4, 0, 0, 0};
  check("maps all of it", us(map)(&m, path) == US_OK && m.skip == 0);
  x.handle = m.handle, x.off_lo = FIRST * 4;
  check("cut short under us", ftruncate(fd, 100) == 0);
  add = (us_add_args){y, x, x};
  check("the GPU's fault is an error", us(add)(&add) == US_OK && us(fence)() == US_DEVICE && says("Address Fault"));
  check("after which all goes on", us(free)(x.handle) == US_OK && us(fence)() == US_OK && !mapped(path));
  let_go(y), free(v), close(fd), remove(path);
}

void test_memory(void) {
  if (getenv("FAKE_METAL_BYTES")) test_limit();
  test_counts();
  test_cache();
  test_map();
}
