// What the kernel files know of the library: tensors as resolved pointers, the one stream everything runs on, scratch
// memory that lives until the next op, and how a failure becomes a status and a sentence.
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#include "../../ffi/unsloth.h"
#include "../../ffi/unsloth_ops.h"

namespace us {

/** Element types and activations, the numbers of the ABI. */
enum Dtype {
  F32 = US_F32, BF16 = US_BF16, F16 = US_F16, I32 = US_I32, U8 = US_U8, FP8 = US_FP8_E4M3,
  Q4_0 = US_Q4_0, Q4_1 = US_Q4_1, Q5_0 = US_Q5_0, Q5_1 = US_Q5_1, Q8_0 = US_Q8_0, Q2_K = US_Q2_K, Q3_K = US_Q3_K,
  Q4_K = US_Q4_K, Q5_K = US_Q5_K, Q6_K = US_Q6_K, IQ4_NL = US_IQ4_NL, IQ4_XS = US_IQ4_XS, NF4 = US_NF4, FP8_128 = US_FP8_128,
};
/** Read eight elements at a time through decode8: block formats and fp8. */
inline bool is_packed(int dtype) { return dtype == FP8 || (dtype >= Q4_0 && dtype <= NF4); }
enum Act { SILU = US_SILU, GELU = US_GELU, GELU_TANH = US_GELU_TANH };

/** A tensor whose handle has been looked up. p is null for an absent optional tensor. */
struct Ten {
  char* p;
  int dtype, ndim;
  size_t shape[4];
  size_t numel, rows, cols, bytes;  // rows: all axes but the last
  template <class T> T* as() const { return reinterpret_cast<T*>(p); }
  explicit operator bool() const { return p != nullptr; }
};

/** The stream of the open device. Everything runs on it, in order. */
cudaStream_t stream();
int multiprocessors();
/** Compute capability times ten: 80, 90, ... */
int capability();
/** Most shared memory that a block may ask for, in bytes. */
size_t shared_limit();

/** Room for one purpose at a time; the slots do not disturb each other. */
enum Scratch { SCRATCH_PARTS, SCRATCH_A, SCRATCH_B, SCRATCH_RING, SCRATCH_FP8, SCRATCH_ROPE, SCRATCH_COUNT };
/**
 * Device memory for one op, undefined contents, aligned to 256 bytes, valid until the slot is asked for again. Grows
 * outside captures only. Null, with the error set, when the device has no more or a capture needs more than any run before.
 */
void* scratch(Scratch slot, size_t bytes);

/** Sets the error sentence of this thread and returns the status of its kind. */
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));
int unsupported(const char* what, long value);
/** The status of a failed call of the runtime. */
int cuda_error(const char* what, cudaError_t e);
/** The status of the launch just made. */
int launched(const char* op);

}  // namespace us
