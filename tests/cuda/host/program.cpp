#include "hand.h"

namespace {

/** Makes calls, and stretches of calls that belong together. */
struct Maker : Hand {
  Step product() {
    const uint32_t K = wide, N = WIDE[below(3)];
    Step s{Step::MATMUL, };
    T c = place(dtype, {rows, N});
    s.beta = chance(spin > 0 ? 15 : 35);
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
    if (chance(10)) x.off_lo = x.off_lo ? x.off_lo - 2 : 2;
    const bool swapped = chance(30);
    s.t[0] = c, s.t[1] = swapped ? x : c, s.t[2] = swapped ? c : x;
    if (chance(10)) s.t[1] = place(c.dtype, {rows_of(c), cols(c)});
    return s;
  }
  /** A rotation of a result, mostly by the positions and frequencies of the one before. */
  Step turn() {
    Step s{Step::ROPE, };
    T c, pos, freqs;
    if (!recent(results, c)) c = place(dtype, {rows, wide});
    if (chance(40) && results.size() > 1) c = results[results.size() - 2];
    if (chance(15)) half = chance(60) ? 4 : 8;
    const uint32_t d = half * (chance(6) ? 3 : 2), pairs = chance(8) ? half / 2 : half;
    const uint32_t type = chance(8) ? uint32_t{US_F32} : c.dtype, seen = chance(4) ? uint32_t{US_F32} : type;
    uint32_t tokens = rows_of(c) * (chance(8) ? 2 : 1), heads = std::max(static_cast<uint32_t>(size_of(c) / us_bytes(type, tokens)) / d, 1u);
    if (chance(12) && heads > 1) heads = chance(40) ? heads - 1 : heads / 2;
    if (chance(8)) tokens /= 2;
    s.t[0] = view(1, offset_of(c), seen, {tokens, heads, d});
    if (!recent(positions, pos) || cols(pos) != tokens) positions.push_back(pos = place(US_I32, {tokens}));
    if (!recent(frequencies, freqs) || cols(freqs) != pairs) frequencies.push_back(freqs = place(US_F32, {pairs}));
    if (T other; chance(5) && recent(thins, other)) pos.off_lo = other.off_lo;
    if (chance(4)) pos = place(US_I32, {tokens + 8});
    if (chance(3)) pos.dtype = US_F32;
    if (chance(6)) freqs.dtype = US_I32;
    s.t[1] = pos, s.t[2] = freqs, s.trans_a = chance(30), s.alpha = chance(85) ? 1.0f : 2.0f;
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
    if (s.kind == Step::GLU || s.kind == Step::GLU_BWD) {  // over tensors of one shape
      for (T& t : s.t)
        if (rows_of(t) != rows_of(s.t[0]) || cols(t) != cols(s.t[0])) t = place(dtype, {rows_of(s.t[0]), cols(s.t[0])});
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
  /** Mostly a place of its own, else any, but apart from `from`. */
  T apart(const T& from, uint32_t type, std::vector<uint32_t> shape) {
    for (;;) {
      T t = place(type, shape);
      const uint64_t bytes = (size_of(t) + 255) / 256 * 256;
      if (!chance(own_places)) {
        if (disjoint(t, from)) return t;
        continue;
      }
      if (next_place + bytes > ARENA) next_place = 0;
      t.off_lo = static_cast<uint32_t>(next_place), next_place += bytes;
      if (disjoint(t, from)) return t;
    }
  }
  static Step matmul(T c, T a, T b, uint32_t trans_a, uint32_t trans_b, float beta) {
    Step s{Step::MATMUL};
    s.t[0] = c, s.t[1] = a, s.t[2] = b, s.trans_a = trans_a, s.trans_b = trans_b, s.beta = beta;
    return s;
  }
  /** A feed-forward's backward, parts of it missing; nobody reads h once it is forgotten, until it is filled. */
  void feed_backward() {
    own_places = chance(70) ? 100 : 90, next_place = below(ARENA / 256) * 256;
    const uint32_t r = chance(85) ? 16 : 8, K = chance(35) ? 128 : wide, D = K == 128 ? 128 : 72, base = K == 128 ? uint32_t{US_FP8_128} : dtype;
    const int often = K == 128 ? 98 : 90;
    T h = place(dtype, {rows, K}), gate = apart(h, dtype, {rows, K}), up = apart(h, dtype, {rows, K});
    while (!disjoint(gate, up)) up = apart(h, dtype, {rows, K});
    Step glu{Step::GLU_BWD};
    glu.t[0] = gate, glu.t[1] = up, glu.t[2] = h, glu.t[3] = h, glu.t[4] = gate, glu.t[5] = up, glu.trans_a = chance(90) ? 0 : 1;
    if (chance(15)) glu.t[3] = apart(h, dtype, {rows, K});
    const bool again = chance(70);  // the input's norm
    T y = apart(h, dtype, {rows, 72}), x = apart(h, dtype, {rows, 72});
    while (!disjoint(y, gate) || !disjoint(y, up)) y = apart(h, dtype, {rows, 72});
    while (!disjoint(x, y)) x = apart(h, dtype, {rows, 72});
    if (K == 72 && chance(5)) x = gate;
    const bool turned = chance(4);
    std::vector<T> dead;
    auto apart = [&](const T& from, uint32_t type, std::vector<uint32_t> shape) {  // nor in y's place
      for (;;)
        if (const T t = this->apart(from, type, shape); !again || disjoint(t, y)) return t;
    };
    T side = apart(h, dtype, {rows, r}), dx = apart(h, dtype, {rows, D});
    if (chance(20)) queue.push_back(matmul(side, apart(h, dtype, {rows, K}), apart(h, US_F32, {K, r}), 0, 0, 0));
    queue.push_back(glu);
    if (chance(often)) queue.push_back(matmul(apart(h, US_F32, {r, K}), side, h, 1, 0, 1));
    if (chance(15)) queue.push_back(matmul(apart(h, dtype, {rows, 72}), h, apart(h, dtype, {K, 72}), 0, 0, 0));
    auto step = [&](Step::Kind kind, const T& t) {
      Step s{kind};
      s.t[0] = t, queue.push_back(s);
    };
    const T shared = apart(h, base, {K, D});  // the arena has little room for 8-bit ones
    const T weight = apart(h, chance(50) ? uint32_t{US_F32} : dtype, {72});
    auto forget = [&](const T& t) { step(Step::FORGET, t), dead.push_back(t); };
    if (chance(80)) forget(h);
    if (again && chance(10)) {
      step(Step::RENORM, apart(h, dtype, {rows, 72}));
      Step& n = queue.back();
      n.t[1] = apart(h, dtype, {rows, 72}), n.t[2] = apart(h, US_F32, {rows, 2}), n.t[3] = apart(h, US_F32, {72});
    }
    if (again) {
      step(Step::RENORM, y);
      Step& n = queue.back();
      n.t[1] = x, n.t[2] = apart(h, US_F32, {rows, 2}), n.t[3] = weight, n.trans_a = chance(50);
      if (chance(10)) n.t[4] = apart(h, dtype, {72});
    }
    for (const T& d : {up, gate}) {
      // now and then something lies where gate, or what the norm reads, lies
      const uint64_t odd = below(16);
      auto at = [](T t, const T& place) { return t.off_lo = std::min(place.off_lo, static_cast<uint32_t>((ARENA - size_of(t)) / 256 * 256)), t; };
      T db = apart(h, dtype, {rows, r}), xa = chance(80) ? apart(h, dtype, {rows, r}) : db;
      while (!disjoint(db, up) || !disjoint(db, gate)) db = apart(h, dtype, {rows, r});
      const T b = turned ? apart(h, US_F32, {r, K}) : apart(h, US_F32, {K, r});
      if (chance(often)) queue.push_back(matmul(db, d, odd == 1 ? at(b, gate) : b, 0, turned, 0));
      if (chance(often)) queue.push_back(matmul(dx, d, chance(90) ? shared : apart(h, base, {K, D}), 0, 0, d.off_lo == up.off_lo ? 0 : 1));
      const T join_b = apart(h, US_F32, {r, D});
      if (chance(70)) queue.push_back(matmul(dx, db, odd == 0 ? at(join_b, gate) : join_b, 0, 0, 1));
      if (odd == 3 && again) queue.push_back(matmul(at(db, weight), gate, apart(h, US_F32, {K, r}), 0, 0, 0));
      if (odd == 4 && again) queue.push_back(matmul(at(dx, x), gate, apart(h, base, {K, D}), 0, 0, 0));
      if (chance(often)) queue.push_back(matmul(apart(h, US_F32, {K, r}), d, odd == 2 ? at(xa, gate) : xa, 1, 0, 1));
      if (chance(10)) queue.push_back(matmul(apart(h, US_F32, {K, 8}), d, apart(h, dtype, {rows, 8}), 1, 0, 1));
      if (again && chance(90)) queue.push_back(matmul(apart(h, US_F32, {r, 72}), db, y, 1, 0, 1));
      if (again && chance(15)) queue.push_back(matmul(apart(h, US_F32, {72, r}), y, chance(50) ? xa : db, 1, 0, 1));
      if (again && chance(15)) queue.push_back(matmul(apart(h, US_F32, {r, 72}), db, x, 1, 0, 1));  // raw beside normed
      if (again && chance(10)) queue.push_back(matmul(apart(h, dtype, {rows, r}), x, apart(h, US_F32, {72, r}), 0, 0, 0));
      if (again && chance(8)) queue.push_back(matmul(apart(h, US_F32, {r, 80}), db, view(y.handle, us_offset(&y), dtype, {rows, 80}), 1, 0, 1));
      if (again && chance(5)) queue.push_back(matmul(apart(h, dtype, {rows, 64}), y, apart(h, dtype, {72, 64}), 0, 0, 0));
    }
    if (again && chance(10)) step(Step::COPY, apart(h, dtype, {rows, 72})), queue.back().t[1] = y;
    if (again && chance(80)) forget(y);
    for (const T& t : {gate, up}) {
      if (chance(60)) forget(t);
      else if (chance(70)) step(Step::COPY, apart(t, dtype, {rows, K})), queue.back().t[1] = t;
    }
    for (const T& t : dead) step(Step::FILL, t);
  }
  /** An activation and what reads it. */
  void feed_forward() {
    own_places = chance(70) ? 100 : 90, next_place = below(ARENA / 256) * 256;
    const uint32_t r = chance(85) ? 16 : 8, K = chance(25) ? 128 : wide, D = K == 128 ? 128 : 72, base = K == 128 ? uint32_t{US_FP8_128} : dtype;
    const T h = place(dtype, {rows, K}), out = apart(h, dtype, {rows, D}), ha = apart(h, dtype, {rows, r});
    Step glu{Step::GLU};
    glu.t[0] = h, glu.t[1] = apart(h, dtype, {rows, K}), glu.t[2] = apart(h, dtype, {rows, K}), glu.trans_a = chance(90) ? 0 : 1;
    queue.push_back(glu);
    if (chance(80)) queue.push_back(matmul(out, h, apart(h, base, {D, K}), 0, 1, 0));
    if (chance(90)) queue.push_back(matmul(ha, h, apart(h, US_F32, {r, K}), 0, 1, 0));
    if (chance(80)) queue.push_back(matmul(out, ha, apart(h, US_F32, {D, r}), 0, 1, 1));
    if (chance(15)) queue.push_back(matmul(apart(h, dtype, {rows, 72}), h, apart(h, dtype, {72, K}), 0, 1, 0));
    if (chance(30)) return;
    for (const Step::Kind kind : {Step::FORGET, Step::FILL}) {
      Step s{kind};
      s.t[0] = h, queue.push_back(s);
    }
  }
  /** A backward of attention, of shapes it has: what it writes may be turned. */
  Step attend() {
    Step s{Step::ATTENTION_BWD};
    const uint32_t d = 2 * half, heads = 64 / d, kv_heads = chance(50) ? heads : heads / 2;
    for (int i = 0; i < 10; i++) {
      const bool of_keys = i == 1 || i == 2 || i == 5 || i == 6;
      s.t[i] = i < 8 ? place(dtype, {rows, of_keys ? kv_heads : heads, d}) : i == 8 ? place(US_F32, {heads, rows}) : place(US_I32, {2});
    }
    if (chance(50)) s.t[3] = s.t[4] = s.t[7], s.t[5] = s.t[6];
    if (chance(40)) recent(results, s.t[3]), s.t[3] = view(1, offset_of(s.t[3]), dtype, {rows, heads, d});
    turns = 4;
    for (int i = 0; i < 2; i++) results.push_back(view(1, offset_of(s.t[i]), dtype, {rows, cols(s.t[i]) * s.t[i].shape[1]}));
    return s;
  }
  /** What rotations read is changed. */
  Step change() {
    Step s{Step::SCALE};
    if (!recent(chance(30) ? positions : frequencies, s.t[0])) s.t[0] = place(US_I32, {rows});
    return s.t[1] = s.t[0], s.alpha = 5, s;
  }
  static T near(T t, const T& to) { return t.off_lo = static_cast<uint32_t>(std::min(offset_of(to) + 16 * below(3), (ARENA - size_of(t)) / 16 * 16)), t; }
  /** A norm, its tensors of odd shapes or in each other's places now and then. */
  Step norm(uint32_t K) {
    Step s{Step::NORM};
    s.t[2] = place(dtype, {rows, K}), s.t[0] = apart(s.t[2], dtype, {rows, K});
    s.t[1] = place(US_F32, {rows, 2}), s.t[3] = place(chance(50) ? uint32_t{US_F32} : dtype, {K});
    s.trans_a = chance(8), s.trans_b = chance(50), s.alpha = static_cast<float>(1 + below(3));
    if (chance(6)) s.t[4] = place(dtype, {K});
    if (chance(6)) s.t[1] = chance(50) ? place(US_F32, {rows, 4}) : place(dtype, {rows, 2});
    if (chance(6)) s.t[3] = place(dtype, {rows, K});
    if (chance(4)) s.t[0] = near(view(1, 0, dtype, {rows, K + 8}), s.t[0]);
    if (chance(6)) s.t[2 + below(2)].off_lo += 4;
    T& moved = s.t[below(4)];
    if (chance(20)) moved = near(moved, s.t[below(4)]);
    return s;
  }
  /** A norm and what reads its rows for one adapter and more, parts of it missing. */
  void feed_norm() {
    const uint32_t r = chance(85) ? 16 : 8, K = chance(25) ? 128 : wide;
    const Step s = norm(K);
    const bool beside = chance(10), partly = chance(15);
    const T y = view(1, offset_of(s.t[0]), dtype, {rows, K}), h = apart(y, dtype, {rows, 72});
    const T part = chance(50) ? view(1, offset_of(y), dtype, {rows, 72}) : view(1, offset_of(y), dtype, {8, K});
    Step glu{Step::GLU}, spoil{Step::FILL};
    glu.t[0] = h, glu.t[1] = apart(h, dtype, {rows, 72}), glu.t[2] = apart(h, dtype, {rows, 72});
    queue.push_back(s);
    if (beside) queue.insert(queue.end() - below(2), glu);
    for (uint64_t n = 1 + below(4); n > 0; n--) {
      const T out = apart(y, dtype, {rows, K == 128 ? 128 : uint32_t{72}}), w = place(K == 128 ? uint32_t{US_FP8_128} : dtype, {cols(out), K});
      T xa = apart(y, dtype, {rows, r}), a = place(US_F32, {r, K}), from = partly ? part : y;
      if (chance(10)) xa = near(xa, s.t[1]);
      if (chance(8)) a = near(a, s.t[below(2)]);
      if (chance(8)) spoil.t[0] = s.t[below(4)], queue.push_back(spoil);
      if (beside && chance(50)) queue.push_back(matmul(near(place(dtype, {rows, 16}), s.t[below(2)]), h, apart(h, US_F32, {16, 72}), 0, 1, 0));
      if (chance(80)) queue.push_back(matmul(out, y, w, 0, 1, 0));
      if (chance(90)) queue.push_back(matmul(rows_of(from) == rows ? xa : view(1, offset_of(xa), dtype, {8, r}), from, view(1, offset_of(a), US_F32, {r, cols(from)}), 0, 1, 0));
      if (chance(70)) queue.push_back(matmul(out, xa, place(US_F32, {cols(out), r}), 0, 1, 1));
      if (chance(partly ? 40 : 8)) queue.push_back(chance(50) ? norm(K) : s);
    }
    if (chance(30)) queue.push_back(matmul(place(US_F32, {r, K}), apart(y, dtype, {rows, r}), y, 1, 0, 1));
  }
  Step next() {
    if (queue.empty() && burst == 0 && spin == 0 && turns == 0 && chance(7)) chance(45) ? feed_backward() : chance(30) ? feed_forward() : feed_norm();
    if (!queue.empty()) {
      const Step s = queue.front();
      return queue.erase(queue.begin()), s;
    }
    if (turns > 0) return --turns, chance(70) ? turn() : chance(40) ? attend() : change();
    if (spin > 0 && chance(8)) return attend();
    if (spin > 0) return --spin % 2 && chance(85) ? product() : chance(60) ? turn() : chance(60) ? change() : chance(50) ? sum() : chance(50) ? thin() : join();
    if (chance(5)) habits();
    if (turning && chance(6)) spin = 20;
    if (chance(4)) burst = 10, rank = chance(30) ? 32 : rank;
    if (burst > 0) return --burst == 9 ? product() : chance(45) ? thin() : join();
    const uint64_t x = below(100);
    return x < 30 ? product() : x < 49 ? thin() : x < 69 ? join() : x < 83 ? tall() : x < 90 ? sum() : x < 92 ? turn() : other();
  }
  /** Kernels need a result to lie apart from what is read, or in the place of an operand where the operation says so. */
  static bool legal(const Step& s) {
    if (s.kind == Step::MATMUL) return disjoint(s.t[0], s.t[1]) && disjoint(s.t[0], s.t[2]) && disjoint(s.t[0], s.t[3]);
    if (s.kind == Step::GLU) return disjoint(s.t[0], s.t[1]) && disjoint(s.t[0], s.t[2]);
    if (s.kind == Step::GLU_BWD) {  // each output may lie where its input lies: gate, up, dh
      const int own[] = {4, 5, 3};
      for (int o = 0; o < 3; o++)
        for (int i = 0; i < 6; i++)
          if (i != o && !disjoint(s.t[o], s.t[i]) && !(i == own[o] && offset_of(s.t[o]) == offset_of(s.t[i]))) return false;
      return true;
    }
    if (s.kind == Step::ROPE && s.t[0].ndim == 3) return disjoint(s.t[0], s.t[1]) && disjoint(s.t[0], s.t[2]);
    if (s.kind == Step::ATTENTION_BWD && s.t[0].ndim == 3) {
      for (int i = 0; i < 3; i++)
        for (int j = i + 1; j < 10; j++)
          if (!disjoint(s.t[i], s.t[j])) return false;
    }
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
  m.turning = number % 2;
  m.habits();
  for (uint64_t n = 4 + below(16); p.body.size() < n || !m.queue.empty();) p.body.push_back(m.operation());
  for (uint64_t n = 10 + below(50); p.rest.size() < n || !m.queue.empty();) p.rest.push_back(m.queue.empty() && chance(15) ? m.transfer(true) : m.operation());
  return p;
}
