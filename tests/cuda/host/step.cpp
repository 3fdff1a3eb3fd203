// A step of a random program: what it is called and how it runs.
#include "program.h"

std::string Step::text() const {
  static const char* names[] = {"matmul", "add", "copy", "scale", "fill", "upload", "download", "fence", "launch", "forget", "renorm"};
  std::string s = kind < EMBED ? names[kind] : "operation " + std::to_string(kind);
  for (const T& x : t)
    if (x.handle) s += " " + std::to_string(offset_of(x)) + "+" + std::to_string(size_of(x)) + ":" + std::to_string(x.dtype) + "[" + std::to_string(rows_of(x)) + "," + std::to_string(cols(x)) + "]";
  return s + (trans_a ? " a^T" : "") + (trans_b ? " b^T" : "") + " alpha " + std::to_string(static_cast<int>(alpha)) + " beta " + std::to_string(static_cast<int>(beta));
}

int32_t run_step(const Step& s, uint32_t arena, Bytes& downloaded) {
  T t[10];
  for (int i = 0; i < 10; i++) t[i] = s.t[i], t[i].handle = s.t[i].handle ? arena : 0;
#define CALL(op, ...)        \
  {                          \
    us_##op##_args a{__VA_ARGS__}; \
    return us_##op(&a);      \
  }
  switch (s.kind) {
    case Step::MATMUL: CALL(matmul, t[0], t[1], t[2], t[3], s.trans_a, s.trans_b, s.alpha, s.beta)
    case Step::ADD: CALL(add, t[0], t[1], t[2])
    case Step::COPY: CALL(copy, t[0], t[1])
    case Step::SCALE: CALL(scale, t[0], t[1], s.alpha)
    case Step::FILL: CALL(fill, t[0], 5, 5)
    case Step::UPLOAD: return upload(arena, offset_of(t[0]), s.bytes);
    case Step::DOWNLOAD: {
      downloaded.resize(size_of(t[0]));
      return download(arena, offset_of(t[0]), downloaded);
    }
    case Step::FENCE: return us_fence();
    case Step::FORGET: CALL(forget, t[0])
    case Step::RENORM: CALL(renorm, t[0], t[1], t[2], t[3], t[4], s.trans_a)
    case Step::EMBED: CALL(embed, t[0], t[1], t[2], 2)
    case Step::EMBED_BWD: CALL(embed_bwd, t[0], t[1], t[2], 2)
    case Step::NORM: CALL(norm, t[0], t[1], t[2], t[3], t[4], s.trans_a, s.alpha, s.trans_b)
    case Step::NORM_BWD: CALL(norm_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], 0, 0, 0)
    case Step::ROPE: CALL(rope, t[0], t[1], t[2], s.trans_a ? -1 : 1, s.alpha)
    case Step::ATTENTION: CALL(attention, t[0], t[1], t[2], t[3], t[4], t[5], 8, 1, 0, 0)
    case Step::ATTENTION_BWD: CALL(attention_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], 8, 1, 0, 0)
    case Step::CACHE_WRITE: CALL(cache_write, t[0], t[1], t[2], t[3], t[4], t[5])
    case Step::ATTENTION_CACHED: CALL(attention_cached, t[0], t[1], t[2], t[3], t[4], t[5], 1, 0, 0)
    case Step::GLU: CALL(glu, t[0], t[1], t[2], s.trans_a)
    case Step::GLU_BWD: CALL(glu_bwd, t[0], t[1], t[2], t[3], t[4], t[5], s.trans_a)
    case Step::CROSS_ENTROPY: CALL(cross_entropy, t[0], t[1], t[2], t[3], 0, 0, 0)
    case Step::SUM_SQUARES: CALL(sum_squares, t[0], t[1])
    case Step::CLIP_FACTOR: CALL(clip_factor, t[0], t[1], 1)
    case Step::ADAMW: CALL(adamw, t[0], t[1], t[2], t[3], t[4])
    case Step::SGD: CALL(sgd, t[0], t[1], t[2], t[3])
    case Step::LION: CALL(lion, t[0], t[1], t[2], t[3])
    case Step::ADAMW8: CALL(adamw8, t[0], t[1], t[2], t[3], t[4], t[5], t[6])
    case Step::ADAFACTOR: CALL(adafactor, t[0], t[1], t[2], t[3], t[4])
    case Step::NOISE: CALL(noise, t[0], t[1], t[2], t[3], 4)
    case Step::COL_SUM: CALL(col_sum, t[0], t[1])
    case Step::COL_DOT: CALL(col_dot, t[0], t[1], t[2])
    case Step::SCALE_COLS: CALL(scale_cols, t[0], t[1], t[2])
    case Step::ROW_NORM: CALL(row_norm, t[0], t[1], t[2], t[3], 1)
    case Step::DIVIDE: CALL(divide, t[0], t[1], t[2])
    case Step::QUANTIZE_FP8: CALL(quantize_fp8, t[0], t[1], 128)
    case Step::DROPOUT: CALL(dropout, t[0], t[1], t[2], 6, 0, 1)
    case Step::STASH:
    case Step::FETCH: {  // beside the copy something else runs
      us_stash_args stash{s.trans_a, t[0]};
      us_fetch_args fetch{t[0], s.trans_a};
      us_scale_args scale{t[1], t[1], 3};
      us_slot_wait_args wait{s.trans_a};
      int32_t rc = s.kind == Step::STASH ? us_stash(&stash) : us_fetch(&fetch);
      if (!rc && t[1].handle) rc = us_scale(&scale);
      return rc ? rc : us_slot_wait(&wait);
    }
    default: return US_INVALID;
  }
#undef CALL
}
