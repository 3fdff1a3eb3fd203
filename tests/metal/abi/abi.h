// The library under test as a table of its exports: a Linux .so, the shipped Mach-O under qemu, or linked in.
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../ffi/unsloth_extras.h"

#define BASE(X)                                                                                                       \
  X(us_abi_version) X(us_ops) X(us_last_error) X(us_device_probe) X(us_device_count) X(us_device_name) X(us_open)     \
  X(us_close) X(us_act_dtype) X(us_supports) X(us_alloc) X(us_free) X(us_upload) X(us_download) X(us_fill)            \
  X(us_fence) X(us_memory) X(us_graph_begin) X(us_graph_end) X(us_graph_launch) X(us_graph_free)     \
  X(us_map) X(us_cache) X(us_peak_reset)
#define OPS(X)                                                                                                        \
  X(us_embed) X(us_embed_bwd) X(us_norm) X(us_norm_bwd) X(us_matmul) X(us_rope) X(us_attention) X(us_attention_bwd)   \
  X(us_cache_write) X(us_attention_cached) X(us_glu) X(us_glu_bwd) X(us_add) X(us_copy) X(us_scale)                   \
  X(us_cross_entropy) X(us_sum_squares) X(us_clip_factor) X(us_adamw) X(us_sgd) X(us_lion) X(us_adamw8)               \
  X(us_adafactor) X(us_noise) X(us_col_sum) X(us_col_dot) X(us_scale_cols) X(us_row_norm) X(us_divide) X(us_dropout)
#define X(n) extern __typeof__(n)* p_##n;
BASE(X) OPS(X)
#undef X
#define us(n) p_us_##n

typedef us_tensor T;
// A tensor of its own allocation. Shape in up to four sizes, 0 after the last.
T tensor(uint32_t dtype, uint32_t a, uint32_t b, uint32_t c, uint32_t d);
// The same with normal-like numbers of the given size, from a fixed sequence; any float type.
T fresh(uint32_t dtype, float size, uint32_t a, uint32_t b, uint32_t c, uint32_t d);
T ints(uint32_t n, const int32_t* values);
// Random blocks with sane scales.
T blocks(uint32_t dtype, uint32_t rows, uint32_t cols);
// Its memory does not stay in the cache: what is allocated next is full of NaN.
void let_go(T t);
void load(T t, const void* bytes, uint64_t n);
// As f32, whatever the type.
float* values_of(T t);
uint64_t count_of(T t);
const char* error_text(void);
void check(const char* what, bool ok);
bool wanted(const char* group);

void test_library(void);  // library.c: handles, errors, memory, order
void run_ops(void);       // ops.c: every operation once in each type; results go to the file
void test_threads(void);
void test_memory(void);   // memory.c: limits, the cache, files as memory
bool all_are(T t, float want);
void put(T t, float value);
bool says(const char* part);
void keep_result(const char* name, T t);
