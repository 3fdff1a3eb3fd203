// The library around the operations: refusals and their sentences, handles, memory, the order of work and transfers.
#include <pthread.h>

#include "abi.h"

bool says(const char* part) { return strstr(error_text(), part) != 0; }

static void test_before_opening(void) {
  us_alloc_args a = {64, 0, 0};
  check("alloc before open is refused", us(alloc)(&a) == US_DEVICE && says("us_open has not been called"));
  check("close before open is refused", us(close)() == US_INVALID);
  check("ABI version", us(abi_version)() == US_ABI_VERSION);
  char small[8], whole[4096];
  const uint32_t n = us(ops)(whole, sizeof whole);
  const char all[] = US_OP_LIST US_HAS_MAP US_HAS_CACHE US_HAS_PEAK_RESET;
  check("operations and extras with their hashes", n == strlen(all) && !strcmp(whole, all));
  check("a text is cut to the room", us(ops)(small, sizeof small) == n && strlen(small) == 7 && !memcmp(small, US_OP_LIST, 7));
  check("no room is no crash", us(ops)(small, 0) == n);
  check("another device than 0 is refused", us(open)(1) == US_NO_DEVICE && says("device 0"));
  if (getenv("FAKE_METAL_NO_DEVICE")) {
    check("no device: probe says so", us(device_probe)() == US_NO_DEVICE && says("no Metal device"));
    check("no device: none counted, none opened", us(device_count)() == 0 && us(open)(0) == US_NO_DEVICE);
    exit(0);
  }
  if (getenv("FAKE_METAL_FAIL") && !strcmp(getenv("FAKE_METAL_FAIL"), "library")) {
    check("kernels that do not compile are an error", us(open)(0) == US_DEVICE && says("made up by the fake"));
    exit(0);
  }
  check("probe", us(device_probe)() == US_OK && us(device_count)() == 1);
  check("device name", us(device_name)(0, whole, sizeof whole) > 0 && strstr(whole, "GiB"));
}

static void test_handles(void) {
  T x = tensor(US_F32, 8, 0, 0, 0);
  check("free", us(free)(x.handle) == US_OK);
  check("a freed handle is stale", us(free)(x.handle) == US_STALE && says("was freed"));
  T y = tensor(US_F32, 8, 0, 0, 0);
  check("the slot is used again under another handle", y.handle != x.handle);
  us_add_args add = {x, y, y};
  check("a stale tensor is refused", us(add)(&add) == US_STALE);
  T far = y;
  far.off_lo = 16;
  add = (us_add_args){y, y, far};
  check("a tensor past its allocation is refused", us(add)(&add) == US_INVALID && says("allocation has 32 bytes"));
  far = y, far.shape[0] = 7, far.off_lo = 2;
  add = (us_add_args){far, far, far};
  check("a tensor off its alignment is refused", us(add)(&add) == US_INVALID && says("multiple of 4"));
  far = y, far.shape[0] = 0x40000000, far.shape[1] = 0x40000000, far.ndim = 2;
  add = (us_add_args){far, far, far};
  check("sizes that overflow are refused", us(add)(&add) == US_INVALID);
  us_download_args d = {y.handle, 0, 0, 33, 0};
  char room[64];
  check("reading past the end is refused", us(download)(&d, room) == US_INVALID);
  T odd = tensor(US_I32, 8, 0, 0, 0);
  add = (us_add_args){odd, odd, odd};
  check("a type without a kernel is unsupported", us(add)(&add) == US_UNSUPPORTED && says("element type 3"));
  T half = tensor(US_F16, 8, 0, 0, 0);
  add = (us_add_args){y, y, half};
  check("mixed types are unsupported", us(add)(&add) == US_UNSUPPORTED && says("different types"));
  check("graphs are unsupported", us(graph_begin)() == US_UNSUPPORTED);
  check("supports", us(supports)(US_Q4_K, US_AS_WEIGHT) && !us(supports)(US_Q4_K, US_AS_ACTIVATION) && !us(supports)(US_I32, US_AS_WEIGHT));
  let_go(y), let_go(odd), let_go(half);
}

bool all_are(T t, float want) {
  float* v = values_of(t);
  bool ok = true;
  for (uint64_t i = 0; i < count_of(t); i++) ok = ok && v[i] == want;
  free(v);
  return ok;
}
void put(T t, float value) {
  const uint64_t n = count_of(t);
  float* v = malloc(n * 4);
  for (uint64_t i = 0; i < n; i++) v[i] = value;
  load(t, v, n * 4);
  free(v);
}

// Uploads and frees take their place among launches that have not run yet.
static void test_order(uint32_t n) {
  T x = tensor(US_F32, n, 0, 0, 0), y = tensor(US_F32, n, 0, 0, 0), z = tensor(US_F32, n, 0, 0, 0);
  put(x, 1);
  us_add_args xx = {y, x, x}, zz = {z, x, x};
  check("add", us(add)(&xx) == US_OK);
  put(x, 5);
  check("add", us(add)(&zz) == US_OK);
  put(x, 7);
  check("an upload waits its turn", all_are(y, 2) && all_are(z, 10) && all_are(x, 7));
  check("add", us(add)(&xx) == US_OK);
  let_go(x);
  check("memory freed while in use stays until then", all_are(y, 14));
  us_fill_args fill = {y, 3, 0};
  check("fill", us(fill)(&fill) == US_OK && all_are(y, 3));
  let_go(y), let_go(z);
}

static void test_many_launches(void) {
  T x = tensor(US_F32, 64, 0, 0, 0), one = tensor(US_F32, 64, 0, 0, 0);
  put(x, 0), put(one, 1);
  us_add_args add = {x, x, one};
  bool ok = true;
  for (int i = 0; i < 9000; i++) ok = ok && us(add)(&add) == US_OK;  // 35 command buffers: more than may be in flight
  check("nine thousand launches", ok && us(fence)() == US_OK && all_are(x, 9000));
  for (int i = 0; i < 600; i++) us(add)(&add), put(one, 1.0f + (float)(i % 2));
  check("six hundred uploads between launches", all_are(x, 9900 - 0.0f) || all_are(x, 9899));
  let_go(x), let_go(one);
}

void test_library(void) {
  test_before_opening();
  check("open", us(open)(0) == US_OK);
  check("open again is counted", us(open)(0) == US_OK && us(close)() == US_OK);
  check("activations' type", us(act_dtype)() == (getenv("FAKE_METAL_FAMILY") ? US_F16 : US_BF16));
  if (getenv("FAKE_METAL_FAIL")) {
    us_alloc_args a = {64, 0, 0};
    if (!strcmp(getenv("FAKE_METAL_FAIL"), "mapping")) {
      us_map_args m = {0, 0, 16, 0, 7, 7};
      check("pages that Metal does not take are unsupported", us(map)(&m, "/proc/self/exe") == US_UNSUPPORTED && m.handle == 0);
    } else if (!strcmp(getenv("FAKE_METAL_FAIL"), "buffer")) check("no buffer is no memory", us(alloc)(&a) == US_MEMORY);
    else {
      T x = tensor(US_F32, 8, 0, 0, 0);
      us_add_args add = {x, x, x};
      check("a pipeline that does not build is an error", us(add)(&add) == US_DEVICE && says("made up by the fake"));
    }
    us(close)();
    exit(0);
  }
  test_memory();
  test_handles();
  test_order(64), test_order(70000), test_order(1200000);
  test_many_launches();
  T old = tensor(US_F32, 8, 0, 0, 0);
  check("close", us(close)() == US_OK);
  check("open after close", us(open)(0) == US_OK);
  us_fill_args fill = {old, 0, 0};
  check("a handle from before is stale", us(fill)(&fill) == US_STALE);
  T again = tensor(US_F32, 8, 0, 0, 0);
  check("and stays so when its slot is used again", us(fill)(&fill) == US_STALE);
  let_go(again);
  check("close", us(close)() == US_OK);
}

static void* other_thread(void* arg) {
  T x = tensor(US_F32, 1000, 0, 0, 0), y = tensor(US_F32, 1000, 0, 0, 0);
  put(x, 2), put(y, 0);
  us_add_args add = {y, y, x}, wrong = {.out = {.handle = 12345}};
  bool ok = true;
  for (int i = 0; i < 200; i++) ok = ok && us(add)(&add) == US_OK;
  ok = ok && us(add)(&wrong) == US_STALE;
  char text[256];
  us(last_error)(text, sizeof text);
  *(bool*)arg = ok && strstr(text, "12345") && all_are(y, 400);
  let_go(x), let_go(y);
  return 0;
}
void test_threads(void) {
  pthread_t t[3];
  bool ok[3];
  us(graph_free)(1);  // this thread's error is another one
  for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, other_thread, &ok[i]);
  for (int i = 0; i < 3; i++) pthread_join(t[i], 0);
  check("three threads at once, each with its own error", ok[0] && ok[1] && ok[2] && says("Metal has none"));
}
