// Tests of the C ABI from C: abi_test LIB RESULTS [group…]. LIB is a library to dlopen; under qemu machorun.c brings the
// Mach-O instead. RESULTS gets what every operation computed, for comparison between builds.
#include <dlfcn.h>

#include "abi.h"

#define X(n) __typeof__(n)* p_##n;
BASE(X) OPS(X)
#undef X

static int bad, runs;
static char** groups;
static FILE* results;
static uint64_t seed = 88172645463325252ull;

void check(const char* what, bool ok) {
  runs++;
  if (!ok) bad++, printf("  FAIL %s\n", what);
  if (!ok && getenv("ABI_TEST_STOP")) _Exit(1);  // one is enough for a slip (host_mutants.py)
}
bool wanted(const char* group) {
  if (!groups || !*groups) return true;
  for (char** g = groups; *g; g++) {
    if (!strcmp(*g, group)) return true;
  }
  return false;
}
const char* error_text(void) {
  static char text[1024];
  us(last_error)(text, sizeof text);
  return text;
}

static double uniform(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (double)(seed >> 11) / 9007199254740992.0;
}

uint64_t count_of(T t) { return us_numel(&t); }

T tensor(uint32_t dtype, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  T t = {.dtype = dtype, .ndim = 1 + !!b + !!c + !!d, .shape = {a, b ? b : 1, c ? c : 1, d ? d : 1}};
  const uint64_t bytes = us_bytes(dtype, us_numel(&t));
  us_alloc_args args = {(uint32_t)bytes, (uint32_t)(bytes >> 32), 0};
  if (us(alloc)(&args)) printf("  FAIL alloc: %s\n", error_text()), exit(1);
  t.handle = args.handle;
  return t;
}
void let_go(T t) {
  us_cache_args none = {0};
  us(free)(t.handle), us(cache)(&none);
}
void load(T t, const void* bytes, uint64_t n) {
  us_upload_args args = {t.handle, t.off_lo, t.off_hi, (uint32_t)n, (uint32_t)(n >> 32)};
  check("upload", us(upload)(&args, bytes) == US_OK);
}

static uint16_t to_bf16(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
T fresh(uint32_t dtype, float size, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  T t = tensor(dtype, a, b, c, d);
  const uint64_t n = count_of(t);
  float* v = malloc(n * 4 + 4);
  uint16_t* h = malloc(n * 2 + 2);
  for (uint64_t i = 0; i < n; i++) {
    v[i] = size * (float)((uniform() + uniform() + uniform() - 1.5) * 2);
    if (dtype == US_BF16) h[i] = to_bf16(v[i]);
    if (dtype == US_F16) {
      _Float16 x = (_Float16)v[i];
      memcpy(&h[i], &x, 2);
    }
  }
  load(t, dtype == US_F32 ? (void*)v : h, us_bytes(dtype, n));
  free(v), free(h);
  return t;
}
T ints(uint32_t n, const int32_t* values) {
  T t = tensor(US_I32, n, 0, 0, 0);
  load(t, values, n * 4ull);
  return t;
}
T blocks(uint32_t dtype, uint32_t rows, uint32_t cols) {
  static const struct { uint32_t dtype, at[2]; } scales[] = {
      {US_Q4_0, {0, 0}}, {US_Q4_1, {0, 2}}, {US_Q5_0, {0, 0}}, {US_Q5_1, {0, 2}}, {US_Q8_0, {0, 0}}, {US_Q2_K, {80, 82}},
      {US_Q3_K, {108, 108}}, {US_Q4_K, {0, 2}}, {US_Q5_K, {0, 2}}, {US_Q6_K, {208, 208}}, {US_IQ4_NL, {0, 0}}, {US_IQ4_XS, {0, 0}}};
  T t = tensor(dtype, rows, cols, 0, 0);
  const uint64_t n = us_bytes(dtype, count_of(t));
  const uint32_t one = dtype == US_NF4 ? 64 : dtype == US_FP8_E4M3 ? 1 : us_bytes(dtype, 32) ? 32 : 256;
  const uint64_t width = us_bytes(dtype, dtype >= US_Q2_K && dtype != US_IQ4_NL && dtype != US_NF4 ? 256 : one);
  uint8_t* b = malloc(n);
  for (uint64_t i = 0; i < n; i++) b[i] = dtype == US_FP8_E4M3 ? (uint8_t)(uniform() * 100) : (uint8_t)(uniform() * 256);
  for (uint64_t i = 0; i < n; i += width) {
    for (unsigned s = 0; s < sizeof scales / sizeof *scales; s++) {
      if (scales[s].dtype != dtype) continue;
      for (int k = 0; k < 2; k++) {
        _Float16 x = (_Float16)(0.001f * (float)(0.5 + uniform()));
        memcpy(b + i + scales[s].at[k], &x, 2);
      }
    }
    float f = 0.1f;
    if (dtype == US_NF4) memcpy(b + i + 32, &f, 4);
  }
  load(t, b, n);
  free(b);
  return t;
}
float* values_of(T t) {
  const uint64_t n = count_of(t), bytes = us_bytes(t.dtype, n);
  uint8_t* raw = malloc(bytes + 1);
  float* v = malloc(n * 4 + 4);
  us_download_args args = {t.handle, t.off_lo, t.off_hi, (uint32_t)bytes, (uint32_t)(bytes >> 32)};
  const int status = us(download)(&args, raw);
  check("download", status == US_OK);
  if (status) printf("  %s\n", error_text()), memset(raw, 0xff, bytes);
  for (uint64_t i = 0; i < n; i++) {
    if (t.dtype == US_F32) memcpy(&v[i], raw + 4 * i, 4);
    else if (t.dtype == US_BF16) {
      uint16_t h;
      memcpy(&h, raw + 2 * i, 2);
      const uint32_t u = (uint32_t)h << 16;
      memcpy(&v[i], &u, 4);
    } else if (t.dtype == US_F16) {
      _Float16 h;
      memcpy(&h, raw + 2 * i, 2);
      v[i] = (float)h;
    } else v[i] = raw[i];
  }
  free(raw);
  return v;
}
void keep_result(const char* name, T t) {
  float* v = values_of(t);
  const uint32_t n = (uint32_t)count_of(t);
  bool finite = true;
  for (uint32_t i = 0; i < n; i++) finite = finite && isfinite(v[i]);
  check(name, finite);
  if (results) {
    char fixed[56] = "";
    snprintf(fixed, sizeof fixed, "%s", name);
    fwrite(fixed, 1, sizeof fixed, results), fwrite(&t.dtype, 4, 1, results), fwrite(&n, 4, 1, results), fwrite(v, 4, n, results);
  }
  free(v);
}

int abi_test(void* (*get)(void*, const char*), void* h, long (*live)(void), int argc, char** argv) {
#define X(n)                                                            \
  p_##n = (__typeof__(p_##n))get(h, #n);                                \
  if (!p_##n) printf("  FAIL no export %s\n", #n), exit(1);
  BASE(X) OPS(X)
#undef X
  results = argc > 0 ? fopen(argv[0], "wb") : 0;
  groups = argc > 1 ? argv + 1 : 0;
  if (!groups) test_library();
  check("opens for the operations", us(open)(0) == US_OK);
  run_ops();
  if (!groups) test_threads();
  check("closes", us(close)() == US_OK);
  if (live) check("leaves no object behind", live() == 0);
  if (results) fclose(results);
  printf("%d passed, %d failed\n", runs - bad, bad);
  return bad != 0;
}

#ifdef WITH_DLOPEN
int main(int argc, char** argv) {
  void* h = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!h) return puts(dlerror()), 1;
  return abi_test(dlsym, h, (long (*)(void))dlsym(h, "fake_metal_live_objects"), argc - 2, argv + 2);
}
#endif
#ifdef LINKED
long fake_metal_live_objects(void);
static void* linked(void* h, const char* name) {
  (void)h;
#define X(n) if (!strcmp(name, #n)) return (void*)n;
  BASE(X) OPS(X)
#undef X
  return 0;
}
void msl_set_schedule(int order, unsigned seed);
int main(int argc, char** argv) {
  // abi_test SCHEDULE RESULTS group…
  if (argc > 1) msl_set_schedule(atoi(argv[1]) < 2 ? atoi(argv[1]) : 2, (unsigned)atoi(argv[1]));
  return abi_test(linked, 0, fake_metal_live_objects, argc - 2, argv + 2);
}
#endif
