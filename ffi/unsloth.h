// The C ABI that every native backend exports. Generated from ffi/abi.ts by ffi/header.ts: do not edit.
//
// Rules for a library
// - An operation is int32_t us_<op>(const us_<op>_args*): it checks, launches, and returns without waiting. 0 is success;
//   otherwise us_last_error has the sentence: action first, then state, wish and way out, no period. Nothing aborts.
// - Structs hold 4-byte words only. A size that may pass 32 bits is two words, low first. Pointers ("buf") are the
//   caller's memory, valid during the call only; a text is UTF-8, cut to cap-1 bytes and NUL-terminated, and the number
//   returned is its whole length.
// - Device memory is a u32 handle into the library's own table, never a pointer; 0 is "none". A freed handle must answer
//   US_STALE, so its slot carries a generation. Offset and bytes of every tensor are checked against the allocation.
// - The adapter has checked shapes and dtypes against each other; the library checks that it has a kernel for them and
//   answers US_UNSUPPORTED otherwise. An operation it lacks is exported with US_LACKS(us_<op>).
// - Outputs are written (=) unless marked +=; "in place" and "may be" name the only overlaps. No operation allocates,
//   reads device memory on the host, or takes what changes between steps as a scalar: a captured step replays.
// - Results do not depend on the launch: no float atomics where the order of sums would show.
// - Calls come from any thread and the library serialises them; us_last_error is the calling thread's.
#ifndef UNSLOTH_H
#define UNSLOTH_H
#include <stdint.h>
#include <stddef.h>
#if defined(_WIN32)
#define US_EXPORT __declspec(dllexport)
#else
#define US_EXPORT __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
#define US_API extern "C" US_EXPORT
#else
#define US_API US_EXPORT
#endif

#define US_ABI_VERSION 1u

enum { US_OK = 0, US_UNSUPPORTED = 1, US_INVALID = 2, US_STALE = 3, US_MEMORY = 4, US_DEVICE = 5, US_NO_DEVICE = 6, US_BUSY = 7 };
enum {
  US_F32 = 0, US_BF16 = 1, US_F16 = 2, US_I32 = 3, US_U8 = 4, US_FP8_E4M3 = 5, US_Q4_0 = 16, US_Q4_1 = 17,
  US_Q5_0 = 18, US_Q5_1 = 19, US_Q8_0 = 20, US_Q2_K = 21, US_Q3_K = 22, US_Q4_K = 23, US_Q5_K = 24,
  US_Q6_K = 25, US_IQ4_NL = 26, US_IQ4_XS = 27, US_NF4 = 28, US_FP8_128 = 29
};
enum { US_SILU = 0, US_GELU = 1, US_GELU_TANH = 2 };
enum { US_RMS = 0, US_LAYER = 1 };
enum { US_AS_ACTIVATION = 0, US_AS_WEIGHT = 1 };

// Contiguous, row-major; blocks run along the last axis. Unused sizes are 1; handle 0 is an absent tensor.
typedef struct {
  uint32_t handle, dtype, off_lo, off_hi, ndim, shape[4];
} us_tensor;

static inline uint64_t us_offset(const us_tensor* t) { return (uint64_t)t->off_hi << 32 | t->off_lo; }
static inline uint64_t us_numel(const us_tensor* t) {
  return (uint64_t)t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}
static inline uint32_t us_cols(const us_tensor* t) { return t->ndim ? t->shape[t->ndim - 1] : 1; }
static inline uint64_t us_rows(const us_tensor* t) { return us_cols(t) ? us_numel(t) / us_cols(t) : 0; }
// Bytes of n elements; 0 for an unknown dtype.
static inline uint64_t us_bytes(uint32_t dtype, uint64_t n) {
  switch (dtype) {
    case US_F32: return n / 1 * 4;
    case US_BF16: return n / 1 * 2;
    case US_F16: return n / 1 * 2;
    case US_I32: return n / 1 * 4;
    case US_U8: return n / 1 * 1;
    case US_FP8_E4M3: return n / 1 * 1;
    case US_Q4_0: return n / 32 * 18;
    case US_Q4_1: return n / 32 * 20;
    case US_Q5_0: return n / 32 * 22;
    case US_Q5_1: return n / 32 * 24;
    case US_Q8_0: return n / 32 * 34;
    case US_Q2_K: return n / 256 * 84;
    case US_Q3_K: return n / 256 * 110;
    case US_Q4_K: return n / 256 * 144;
    case US_Q5_K: return n / 256 * 176;
    case US_Q6_K: return n / 256 * 210;
    case US_IQ4_NL: return n / 32 * 18;
    case US_IQ4_XS: return n / 256 * 136;
    case US_NF4: return n / 64 * 36;
    case US_FP8_128: return n / 16384 * 32772;
    default: return 0;
  }
}

// ---- library, device, memory, graphs ----
// US_ABI_VERSION of the header that the library was built with.
US_API uint32_t us_abi_version(void);

// US_OP_LIST of the header that the library was built with, as a text.
US_API uint32_t us_ops(char* out, uint32_t cap);

// The sentence of this thread's last failed call.
US_API uint32_t us_last_error(char* out, uint32_t cap);

// US_OK when a device of this kind can be used; otherwise US_NO_DEVICE and a sentence with the reason.
US_API int32_t us_device_probe(void);

// Devices of this kind; 0 when there is none.
US_API uint32_t us_device_count(void);

// One line on a device, "NVIDIA H200, 139 GiB, driver 580".
US_API uint32_t us_device_name(uint32_t device, char* out, uint32_t cap);

// Takes the device. Opens are counted: a second one of the same device shares the table of handles; another device
// while one is open answers US_BUSY.
US_API int32_t us_open(uint32_t device);

// Undoes one us_open; the last frees all memory and graphs.
US_API int32_t us_close(void);

// The type activations are best stored in (a US_ dtype).
US_API uint32_t us_act_dtype(void);

// 1 when dtype may be used as: US_AS_ACTIVATION, or US_AS_WEIGHT (matmul's b, embed's table, copy's x).
US_API uint32_t us_supports(uint32_t dtype, uint32_t as);

typedef struct {
  uint32_t bytes_lo;
  uint32_t bytes_hi;
  uint32_t handle; // out
} us_alloc_args;
// Memory with undefined contents, aligned to 256 bytes. US_MEMORY when there is not as much left.
US_API int32_t us_alloc(us_alloc_args*);

// Gives memory back once everything launched has finished with it.
US_API int32_t us_free(uint32_t handle);

typedef struct {
  uint32_t handle;
  uint32_t off_lo;
  uint32_t off_hi;
  uint32_t bytes_lo;
  uint32_t bytes_hi;
} us_upload_args;
// Copies bytes from src to handle + off; returns when src may be reused.
US_API int32_t us_upload(us_upload_args*, const void* src);

typedef struct {
  uint32_t handle;
  uint32_t off_lo;
  uint32_t off_hi;
  uint32_t bytes_lo;
  uint32_t bytes_hi;
} us_download_args;
// Waits for what was launched, then copies bytes from handle + off to dst.
US_API int32_t us_download(us_download_args*, void* dst);

typedef struct {
  us_tensor dst; // dense
  float value; // for float types
  int32_t integer; // for i32 and u8
} us_fill_args;
// Every element = value.
US_API int32_t us_fill(us_fill_args*);

// Waits for what was launched; reports what failed meanwhile.
US_API int32_t us_fence(void);

typedef struct {
  uint32_t active_lo; // out
  uint32_t active_hi; // out
  uint32_t peak_lo; // out
  uint32_t peak_hi; // out
  uint32_t limit_lo; // out; 0 = unknown
  uint32_t limit_hi; // out
} us_memory_args;
// Bytes in use, most ever in use, and what the device has.
US_API int32_t us_memory(us_memory_args*);

// Starts recording: calls until us_graph_end are not run. US_UNSUPPORTED when the device has no graphs.
US_API int32_t us_graph_begin(void);

typedef struct {
  uint32_t graph; // out
} us_graph_end_args;
// Ends recording; graph is a number for the two calls below.
US_API int32_t us_graph_end(us_graph_end_args*);

// Runs what was recorded, without waiting.
US_API int32_t us_graph_launch(uint32_t graph);

// Forgets a recording.
US_API int32_t us_graph_free(uint32_t graph);

#include "unsloth_ops.h"
#endif
