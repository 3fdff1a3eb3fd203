// A backend for the FFI tests: host memory, two operations, graphs, and every way to fail. Built by the tests with gcc.
//   -DVERSION=n   answers another ABI version        -DNO_DEVICE   finds no device
//   -DOLD_ADD     was built for other arguments of us_add          -DNO_GRAPHS
#include "unsloth.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 12, CALLS = 256 };
static struct { uint8_t* at; uint64_t bytes; uint32_t turn; } slot[SLOTS]; // 0 is never used
static uint64_t active, peak;
static uint32_t opens;
static char why[512] = "";

static int32_t fail(int32_t status, const char* what, uint32_t a, uint32_t b) {
  snprintf(why, sizeof why, what, a, b);
  return status;
}
static uint32_t text(const char* s, char* out, uint32_t cap) {
  uint32_t n = (uint32_t)strlen(s);
  if (cap) { uint32_t m = n < cap ? n : cap - 1; memcpy(out, s, m); out[m] = 0; }
  return n;
}
int32_t us_lacks(const char* symbol) {
  snprintf(why, sizeof why, "%s is not in the test library", symbol);
  return US_UNSUPPORTED;
}

#ifndef VERSION
#define VERSION US_ABI_VERSION
#endif
US_API uint32_t us_abi_version(void) { return VERSION; }
US_API uint32_t us_ops(char* out, uint32_t cap) {
  static char list[] = US_OP_LIST;
#ifdef OLD_ADD
  char* add = strstr(list, "us_add:");
  add[7] = add[7] == '0' ? '1' : '0';
#endif
  return text(list, out, cap);
}
US_API uint32_t us_last_error(char* out, uint32_t cap) { return text(why, out, cap); }
US_API int32_t us_device_probe(void) {
#ifdef NO_DEVICE
  return fail(US_NO_DEVICE, "no device: the driver is too old (driver %u, needs %u)", 470, 525);
#else
  return US_OK;
#endif
}
US_API uint32_t us_device_count(void) { return 1; }
US_API uint32_t us_device_name(uint32_t device, char* out, uint32_t cap) {
  return text(device == 0 ? "test device, 1 GiB, \xc3\xa4" : "", out, cap);
}
US_API int32_t us_open(uint32_t device) {
  if (device != 0) return fail(US_NO_DEVICE, "there is no device %u, only %u", device, 1);
  opens++;
  return US_OK;
}
US_API int32_t us_close(void) {
  if (--opens == 0) {
    for (uint32_t i = 1; i < SLOTS; i++) if (slot[i].at) { free(slot[i].at); slot[i].at = NULL; slot[i].turn++; }
    active = peak = 0;
  }
  return US_OK;
}
US_API uint32_t us_act_dtype(void) { return US_F32; }
US_API uint32_t us_supports(uint32_t dtype, uint32_t as) { return as == US_AS_ACTIVATION ? dtype == US_F32 : dtype == US_F32 || dtype == US_Q8_0; }

// A handle is a slot and the number of times it was freed.
US_API int32_t us_alloc(us_alloc_args* a) {
  uint64_t bytes = (uint64_t)a->bytes_hi << 32 | a->bytes_lo;
  if (active + bytes > (1u << 30)) return fail(US_MEMORY, "%u MiB are not left of %u", (uint32_t)(bytes >> 20), 1024);
  uint32_t i = 1;
  while (i < SLOTS && slot[i].at) i++;
  if (i == SLOTS) return fail(US_MEMORY, "all %u handles are taken%.0u", SLOTS, 0);
  slot[i].at = malloc(bytes + 1);
  memset(slot[i].at, 0xff, bytes); // NaN
  slot[i].bytes = bytes;
  active += bytes;
  if (active > peak) peak = active;
  a->handle = (slot[i].turn & 0xfffff) << 12 | i;
  return US_OK;
}
static uint8_t* at(uint32_t handle, uint64_t off, uint64_t bytes, int32_t* status) {
  uint32_t i = handle & (SLOTS - 1);
  if (!slot[i].at || (slot[i].turn & 0xfffff) != handle >> 12) {
    *status = fail(US_STALE, "handle %u was freed or never made%.0u", handle, 0);
    return NULL;
  }
  if (off > slot[i].bytes || bytes > slot[i].bytes - off) {
    *status = fail(US_INVALID, "a tensor ends past the %u bytes of handle %u", (uint32_t)slot[i].bytes, handle);
    return NULL;
  }
  return slot[i].at + off;
}
static float* data(const us_tensor* t, int32_t* status) {
  if (t->dtype != US_F32) { *status = fail(US_UNSUPPORTED, "it has no kernel for dtype %u%.0u", t->dtype, 0); return NULL; }
  return (float*)at(t->handle, us_offset(t), us_bytes(t->dtype, us_numel(t)), status);
}
US_API int32_t us_free(uint32_t handle) {
  int32_t status = US_OK;
  uint8_t* p = at(handle, 0, 0, &status);
  if (!p) return status;
  uint32_t i = handle & (SLOTS - 1);
  active -= slot[i].bytes;
  free(p);
  slot[i].at = NULL;
  slot[i].turn++;
  return US_OK;
}
US_API int32_t us_upload(us_upload_args* a, const void* src) {
  int32_t status = US_OK;
  uint64_t n = (uint64_t)a->bytes_hi << 32 | a->bytes_lo;
  uint8_t* p = at(a->handle, (uint64_t)a->off_hi << 32 | a->off_lo, n, &status);
  if (p) memcpy(p, src, n);
  return status;
}
US_API int32_t us_download(us_download_args* a, void* dst) {
  int32_t status = US_OK;
  uint64_t n = (uint64_t)a->bytes_hi << 32 | a->bytes_lo;
  uint8_t* p = at(a->handle, (uint64_t)a->off_hi << 32 | a->off_lo, n, &status);
  if (p) memcpy(dst, p, n);
  return status;
}
US_API int32_t us_fill(us_fill_args* a) {
  int32_t status = US_OK;
  float* p = data(&a->dst, &status);
  if (p) for (uint64_t i = 0; i < us_numel(&a->dst); i++) p[i] = a->value;
  return status;
}
US_API int32_t us_fence(void) { return US_OK; }
US_API int32_t us_memory(us_memory_args* a) {
  *a = (us_memory_args){(uint32_t)active, 0, (uint32_t)peak, 0, 1u << 30, 0};
  return US_OK;
}

// ---- graphs: calls with their structs, kept and run again ----
static struct { int32_t (*run)(const void*); us_attention_bwd_args args; } kept[CALLS];
static uint32_t calls, recording, graphs;
US_API int32_t us_graph_begin(void) {
#ifdef NO_GRAPHS
  return us_lacks("us_graph_begin");
#else
  calls = 0;
  recording = 1;
  return US_OK;
#endif
}
US_API int32_t us_graph_end(us_graph_end_args* a) { recording = 0; a->graph = ++graphs; return US_OK; }
US_API int32_t us_graph_launch(uint32_t graph) {
  if (graph != graphs) return fail(US_STALE, "graph %u was freed or never made%.0u", graph, 0);
  int32_t status = US_OK;
  for (uint32_t i = 0; i < calls && status == US_OK; i++) status = kept[i].run(&kept[i].args);
  return status;
}
US_API int32_t us_graph_free(uint32_t graph) { if (graph == graphs) graphs++; return US_OK; }
static int keep(int32_t (*run)(const void*), const void* args, size_t bytes) {
  if (!recording) return 0;
  kept[calls].run = run;
  memcpy(&kept[calls++].args, args, bytes);
  return 1;
}

// ---- two operations ----
US_API int32_t us_add(const us_add_args* a) {
  if (keep((int32_t (*)(const void*))us_add, a, sizeof *a)) return US_OK;
  int32_t status = US_OK;
  float *out = data(&a->out, &status), *x = data(&a->a, &status), *y = data(&a->b, &status);
  if (status == US_OK) for (uint64_t i = 0; i < us_numel(&a->a); i++) out[i] = x[i] + y[i];
  return status;
}
US_API int32_t us_matmul(const us_matmul_args* a) {
  if (keep((int32_t (*)(const void*))us_matmul, a, sizeof *a)) return US_OK;
  int32_t status = US_OK;
  float *c = data(&a->c, &status), *x = data(&a->a, &status), *y = data(&a->b, &status);
  float* bias = a->bias.handle ? data(&a->bias, &status) : NULL;
  if (status != US_OK) return status;
  uint32_t M = (uint32_t)us_rows(&a->c), N = us_cols(&a->c);
  uint32_t K = a->trans_a ? (uint32_t)us_rows(&a->a) : us_cols(&a->a);
  for (uint32_t i = 0; i < M; i++) for (uint32_t j = 0; j < N; j++) {
    double sum = 0;
    for (uint32_t k = 0; k < K; k++) sum += (double)x[a->trans_a ? k * M + i : i * K + k] * y[a->trans_b ? j * K + k : k * N + j];
    c[i * N + j] = (float)(a->alpha * sum + (a->beta != 0 ? a->beta * c[i * N + j] : 0) + (bias ? bias[j] : 0));
  }
  return US_OK;
}

US_LACKS(us_embed)
US_LACKS(us_embed_bwd)
US_LACKS(us_norm)
US_LACKS(us_norm_bwd)
US_LACKS(us_rope)
US_LACKS(us_attention)
US_LACKS(us_attention_bwd)
US_LACKS(us_cache_write)
US_LACKS(us_attention_cached)
US_LACKS(us_glu)
US_LACKS(us_glu_bwd)
US_LACKS(us_copy)
US_LACKS(us_scale)
US_LACKS(us_cross_entropy)
US_LACKS(us_sum_squares)
US_LACKS(us_clip_factor)
US_LACKS(us_adamw)
US_LACKS(us_noise)
US_LACKS(us_adafactor)
US_LACKS(us_adamw8)
US_LACKS(us_lion)
US_LACKS(us_sgd)
US_LACKS(us_col_sum)
US_LACKS(us_col_dot)
US_LACKS(us_scale_cols)
US_LACKS(us_row_norm)
US_LACKS(us_divide)
US_LACKS(us_dropout)
US_LACKS(us_quantize_fp8)
US_LACKS(us_host_slot)
US_LACKS(us_stash)
US_LACKS(us_fetch)
US_LACKS(us_slot_wait)
