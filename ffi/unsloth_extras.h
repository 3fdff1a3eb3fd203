// What a library may have besides unsloth.h. One that has some answers us_ops with US_OP_LIST followed by their
// entries: US_OP_LIST US_HAS_MAP, say. Generated from ffi/abi_base.ts by ffi/header.ts: do not edit.
#ifndef UNSLOTH_EXTRAS_H
#define UNSLOTH_EXTRAS_H
#include "unsloth.h"

#define US_HAS_MAP " us_map:befa2754"
#define US_HAS_READ " us_read:a76d900b"
#define US_HAS_CACHE " us_cache:bb982253"
#define US_HAS_PEAK_RESET " us_peak_reset:d226823a"
#define US_HAS_FORGET " us_forget:1f36f7e3"
#define US_HAS_RENORM " us_renorm:060ff802"

typedef struct {
  uint32_t off_lo;
  uint32_t off_hi;
  uint32_t bytes_lo;
  uint32_t bytes_hi;
  uint32_t handle; // out
  uint32_t skip; // out; where the file's byte off lies in the handle's memory
} us_map_args;
// Bytes off.. of the file at path (UTF-8, NUL-terminated) as device memory, read only, without a copy: a handle like
// any other, which no operation, upload or fill may write to. It holds the file's pages until it is freed; the file must
// not change meanwhile. US_UNSUPPORTED when the device cannot use these pages: upload them instead.
US_API int32_t us_map(us_map_args*, const char* path);

typedef struct {
  uint32_t handle;
  uint32_t off_lo; // in the handle's memory
  uint32_t off_hi;
  uint32_t file_lo; // in the file
  uint32_t file_hi;
  uint32_t bytes_lo;
  uint32_t bytes_hi;
} us_read_args;
// Bytes of the file at path (UTF-8, NUL-terminated) to device memory, read by several threads; what is launched after
// the call sees them.
US_API int32_t us_read(us_read_args*, const char* path);

typedef struct {
  uint32_t keep_lo; // bytes to keep at most; all ones: give nothing back
  uint32_t keep_hi;
  uint32_t cached_lo; // out
  uint32_t cached_hi; // out
} us_cache_args;
// Gives cached memory (freed, and kept for the next us_alloc) back to the system; cached is what is left.
US_API int32_t us_cache(us_cache_args*);

// From now on us_memory's peak counts from what is in use now.
US_API int32_t us_peak_reset(void);

typedef struct {
  us_tensor x;
} us_forget_args;
// What x holds is read by nobody any more but by calls made before: the library need not write it, if it has not yet.
US_API int32_t us_forget(us_forget_args*);

typedef struct {
  us_tensor out; // = [N,D]
  us_tensor x; // [N,D]
  us_tensor stat; // f32 [N,2] as us_norm gave it
  us_tensor w; // [D]
  us_tensor b; // or none; [D]
  uint32_t plus_one; // 1: the weight is 1 + w
} us_renorm_args;
// us_norm's out once more, from the statistics it gave.
US_API int32_t us_renorm(us_renorm_args*);
#endif
