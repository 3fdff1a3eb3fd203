#include "program.h"

namespace {

constexpr uint32_t ROWS[] = {16, 8, 24}, WIDE[] = {72, 64, 80}, RANKS[] = {16, 8, 32};

uint64_t below(uint64_t n) { return fake::random() % n; }
bool chance(int percent) { return below(100) < static_cast<uint64_t>(percent); }

uint32_t cols(const T& t) { return us_cols(&t); }
uint32_t rows_of(const T& t) { return static_cast<uint32_t>(us_rows(&t)); }
uint64_t offset_of(const T& t) { return us_offset(&t); }
uint64_t size_of(const T& t) { return us_bytes(t.dtype, us_numel(&t)); }
bool disjoint(const T& a, const T& b) {
  return !a.handle || !b.handle || offset_of(a) + size_of(a) <= offset_of(b) || offset_of(b) + size_of(b) <= offset_of(a);
}

/** What a maker of calls has in hand: what was written lately, and the habits of this stretch. */
struct Maker {
  std::vector<T> thins, results, inputs, adapters;
  uint32_t rows = 16, trans_b = 1, dtype = US_BF16, rank = 16, wide = 72;
  int wildness = 5;  // percent of tensors that lie anywhere
  int burst = 0;     // so many more calls are thin products of one input and additions to one result

  void habits() {
    rows = ROWS[chance(80) ? 0 : below(3)], trans_b = chance(75), dtype = chance(70) ? US_BF16 : US_F16;
    rank = RANKS[chance(60) ? 0 : below(3)], wide = WIDE[chance(60) ? 0 : below(3)];
    wildness = chance(30) ? 25 : 4;
  }
  /** One of a few places of 4 KiB for activations, of 16 KiB for weights, of 1 KiB for thin results; or anywhere. */
  T place(uint32_t type, std::vector<uint32_t> shape) {
    T t = view(1, 0, type, shape);
    const uint64_t bytes = size_of(t), grid = bytes <= 1024 ? 1024 : bytes <= 4096 ? 4096 : 16384;
    const uint64_t from = bytes <= 1024 ? 0 : bytes <= 4096 ? 8 << 10 : 48 << 10, places = bytes <= 1024 ? 8 : bytes <= 4096 ? 10 : 8;
    uint64_t at = from + below(places) * grid;
    T other;
    const bool beside = chance(wildness) && recent(chance(40) ? results : chance(50) ? thins : inputs, other);
    if (beside) at = offset_of(other) + (chance(50) ? 0 : below(size_of(other) / 16) * 16);
    else if (chance(wildness)) at = below((ARENA - bytes) / 16) * 16 + (chance(10) ? 4 : 0);
    if (type == US_FP8_128) at = at / 16 * 16;
    t.off_lo = static_cast<uint32_t>(std::min(at, (ARENA - bytes) / 256 * 256));
    return t;
  }
  template <class V> bool recent(const V& list, T& t) {
    if (list.empty() || chance(15)) return false;
    if (burst > 0) return t = list.back(), true;
    t = list[list.size() - 1 - below(chance(85) ? std::min<size_t>(list.size(), 3) : list.size())];
    return true;
  }
  T input(uint32_t K) {
    T x;
    if (recent(inputs, x) && cols(x) == K && rows_of(x) == rows && x.dtype == dtype) return x;
    x = place(dtype, {rows, K});
    inputs.push_back(x);
    return x;
  }
  static float factor() { return chance(70) ? 1.0f : static_cast<float>(1 + below(3)); }

  Step product() {
    const uint32_t K = wide, N = WIDE[below(3)];
    Step s{Step::MATMUL, };
    T c = place(dtype, {rows, N});
    s.beta = chance(35);
    if (s.beta != 0) recent(results, c);
    s.t[1] = input(K), s.t[2] = trans_b ? place(dtype, {cols(c), K}) : place(dtype, {K, cols(c)});
    if (rows_of(c) != rows) c = place(dtype, {rows, cols(c)});
    if (chance(15)) s.t[3] = place(chance(50) ? uint32_t{US_F32} : dtype, {cols(c)});
    if (chance(8)) {  // a base weight of 8 bits
      s.t[1] = input(128), c = place(dtype, {rows, 128}), s.t[2] = place(US_FP8_128, {128, 128}), s.t[3] = {};
    } else if (chance(8)) {  // as narrow as a rank, but a product
      c = place(dtype, {rows, rank}), s.t[2] = trans_b ? place(dtype, {rank, K}) : place(dtype, {K, rank}), s.t[3] = {};
      thins.push_back(c);
    }
    s.t[0] = c, s.trans_b = trans_b, s.alpha = chance(95) ? 1.0f : 2.0f;
    results.push_back(c);
    return s;
  }
  Step thin() {
    Step s{Step::MATMUL};
    const uint32_t K = burst == 0 && chance(20) ? 128 : wide;  // as wide as the 8-bit weights
    s.t[0] = place(dtype, {rows, rank}), s.t[1] = input(K);
    s.t[2] = trans_b ? place(US_F32, {rank, K}) : place(US_F32, {K, rank});
    s.trans_b = trans_b, s.alpha = factor(), s.beta = chance(5);
    thins.push_back(s.t[0]);
    return s;
  }
  Step join() {
    Step s{Step::MATMUL, };
    T xa, c;
    if (!recent(thins, xa) || rows_of(xa) != rows) xa = place(dtype, {rows, rank});
    if (!recent(results, c) || rows_of(c) != rows) c = place(dtype, {rows, wide});
    const uint32_t r = cols(xa), N = cols(c);
    s.t[0] = c, s.t[1] = xa, s.t[2] = trans_b ? place(US_F32, {N, r}) : place(US_F32, {r, N});
    s.trans_b = trans_b, s.alpha = factor(), s.beta = chance(92);
    adapters.push_back(s.t[2]);
    return s;
  }
  Step tall() {
    Step s{Step::MATMUL, };
    T xa;
    if (!recent(thins, xa) || rows_of(xa) != rows) xa = place(dtype, {rows, rank});
    const T x = input(chance(10) ? 128 : wide);
    const bool by_rank = chance(50);
    s.t[1] = by_rank ? xa : x, s.t[2] = by_rank ? x : xa;
    s.t[0] = place(US_F32, by_rank ? std::vector<uint32_t>{cols(xa), cols(x)} : std::vector<uint32_t>{cols(x), cols(xa)});
    s.trans_a = 1, s.alpha = factor(), s.beta = chance(95);
    return s;
  }
  Step sum() {
    Step s{Step::ADD, };
    T c;
    if (!recent(results, c)) c = place(dtype, {rows, wide});
    T x = place(c.dtype, {rows_of(c), cols(c)});
    if (chance(10)) x.off_lo += 2;
    const bool swapped = chance(30);
    s.t[0] = c, s.t[1] = swapped ? x : c, s.t[2] = swapped ? c : x;
    if (chance(10)) s.t[1] = place(c.dtype, {rows_of(c), cols(c)});
    return s;
  }
  /** Any other operation, over tensors of any kind: recent ones among them. */
  Step other() {
    Step s{static_cast<Step::Kind>(Step::EMBED + below(Step::KINDS - Step::EMBED))};
    if (chance(30)) s.kind = static_cast<Step::Kind>(Step::COPY + below(3));
    for (T& t : s.t) {
      t = place(dtype, {rows, wide});
      if (chance(25)) recent(results, t);
      else if (chance(25)) recent(thins, t);
      else if (chance(20)) recent(inputs, t);
      else if (chance(30)) t = place(dtype, {wide, wide});
      t.dtype = dtype;
    }
    const bool exact = s.kind == Step::SCALE || s.kind == Step::COPY || s.kind == Step::FILL;
    if (s.kind == Step::QUANTIZE_FP8) s.t[0] = place(US_FP8_128, {128, 128}), s.t[1] = place(dtype, {rows, 128});
    if (s.kind == Step::STASH || s.kind == Step::FETCH) {
      s.trans_a = static_cast<uint32_t>(below(SLOTS));
      do s.t[0] = place(US_BF16, {SLOT_BYTES / 2}), s.t[1] = place(dtype, {rows, wide});
      while (!disjoint(s.t[0], s.t[1]));
      if (chance(50)) s.t[1] = {};
    }
    if (exact && chance(25) && recent(adapters, s.t[0])) return s.t[1] = s.t[0], s.alpha = 3, s;
    if (exact) s.t[1] = place(dtype, {rows_of(s.t[0]), cols(s.t[0])});
    s.alpha = 3;
    return s;
  }
  Step next() {
    if (chance(5)) habits();
    if (chance(4)) burst = 10, rank = chance(30) ? 32 : rank;
    if (burst > 0) return --burst == 9 ? product() : chance(45) ? thin() : join();
    const uint64_t x = below(100);
    return x < 30 ? product() : x < 50 ? thin() : x < 71 ? join() : x < 85 ? tall() : x < 92 ? sum() : other();
  }
  /** Kernels need a product's result to lie apart from what it reads, and a sum's to be an operand or apart. */
  static bool legal(const Step& s) {
    if (s.kind == Step::MATMUL) return disjoint(s.t[0], s.t[1]) && disjoint(s.t[0], s.t[2]) && disjoint(s.t[0], s.t[3]);
    if (s.kind != Step::ADD) return true;
    for (int i : {1, 2})
      if (!disjoint(s.t[0], s.t[i]) && offset_of(s.t[0]) != offset_of(s.t[i])) return false;
    return true;
  }
  Step operation() {
    for (;;)
      if (const Step s = next(); legal(s)) return s;
  }
  Step transfer(bool launches) {
    Step s{launches && chance(40) ? Step::LAUNCH : chance(60) ? Step::UPLOAD : chance(70) ? Step::DOWNLOAD : Step::FENCE};
    s.t[0] = place(dtype, {rows, wide});
    if (chance(50)) recent(thins, s.t[0]);
    if (s.kind == Step::UPLOAD) {
      s.bytes.resize(size_of(s.t[0]));
      for (uint8_t& b : s.bytes) b = static_cast<uint8_t>(fake::random());
    }
    return s;
  }
};

}  // namespace

Program make_program(uint64_t number) {
  fake::seed(number * 1000003);
  Program p;
  Maker m;
  m.habits();
  for (uint64_t n = 4 + below(16); n-- > 0;) p.body.push_back(m.operation());
  for (uint64_t n = 10 + below(50); n-- > 0;) p.rest.push_back(chance(15) ? m.transfer(true) : m.operation());
  return p;
}

std::string Step::text() const {
  static const char* names[] = {"matmul", "add", "copy", "scale", "fill", "upload", "download", "fence", "launch"};
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
    case Step::EMBED: CALL(embed, t[0], t[1], t[2], 2)
    case Step::EMBED_BWD: CALL(embed_bwd, t[0], t[1], t[2], 2)
    case Step::NORM: CALL(norm, t[0], t[1], t[2], t[3], t[4], 0, 0, 0)
    case Step::NORM_BWD: CALL(norm_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], 0, 0, 0)
    case Step::ROPE: CALL(rope, t[0], t[1], t[2], 1, 1)
    case Step::ATTENTION: CALL(attention, t[0], t[1], t[2], t[3], t[4], t[5], 8, 1, 0, 0)
    case Step::ATTENTION_BWD: CALL(attention_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], 8, 1, 0, 0)
    case Step::CACHE_WRITE: CALL(cache_write, t[0], t[1], t[2], t[3], t[4], t[5])
    case Step::ATTENTION_CACHED: CALL(attention_cached, t[0], t[1], t[2], t[3], t[4], t[5], 1, 0, 0)
    case Step::GLU: CALL(glu, t[0], t[1], t[2], 0)
    case Step::GLU_BWD: CALL(glu_bwd, t[0], t[1], t[2], t[3], t[4], t[5], 0)
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
