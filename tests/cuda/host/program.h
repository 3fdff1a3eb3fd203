// Random programs for a Hopper's held-back products: lists of calls over one arena, made so that what one call writes is often
// what another reads. Made by number: the same number gives the same program.
#pragma once
#include "../../../ffi/unsloth_extras.h"
#include "host.h"

inline uint32_t cols(const T& t) { return us_cols(&t); }
inline uint32_t rows_of(const T& t) { return static_cast<uint32_t>(us_rows(&t)); }
inline uint64_t offset_of(const T& t) { return us_offset(&t); }
inline uint64_t size_of(const T& t) { return us_bytes(t.dtype, us_numel(&t)); }

/** A call over views of the arena. Which fields matter depends on the kind. */
struct Step {
  enum Kind {
    MATMUL, ADD, COPY, SCALE, FILL, UPLOAD, DOWNLOAD, FENCE, LAUNCH, FORGET, RENORM, EMBED, EMBED_BWD, NORM, NORM_BWD, ROPE, ATTENTION, ATTENTION_BWD,
    CACHE_WRITE, ATTENTION_CACHED, GLU, GLU_BWD, CROSS_ENTROPY, SUM_SQUARES, CLIP_FACTOR, ADAMW, SGD, LION, ADAMW8, ADAFACTOR,
    NOISE, COL_SUM, COL_DOT, SCALE_COLS, ROW_NORM, DIVIDE, DROPOUT, QUANTIZE_FP8, STASH, FETCH, KINDS
  } kind;
  T t[10] = {};
  uint32_t trans_a = 0, trans_b = 0;
  float alpha = 1, beta = 0;
  Bytes bytes = {};
  std::string text() const;
};

constexpr uint64_t ARENA = 192 << 10;
/** Places in host memory for STASH and FETCH, each of this many bytes. */
constexpr uint32_t SLOTS = 3, SLOT_BYTES = 16 * 72 * 2;

struct Program {
  std::vector<Step> body;  // operations only: run once, then recorded
  std::vector<Step> rest;  // operations, transfers, and launches of the recording
};
Program make_program(uint64_t number);

/** Runs a step on the arena's handle; launches are the caller's. */
int32_t run_step(const Step& s, uint32_t arena, Bytes& downloaded);
