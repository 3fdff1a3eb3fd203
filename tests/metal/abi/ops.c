// Every operation once and more in each activation type, with sizes off the tiles; results go to the file. What they must be
// is the business of tests/ops; here they must agree between builds: native, sanitized, mutated, and the Mach-O under qemu.
#include "abi.h"

static const char* suffix(uint32_t type) { return type == US_F32 ? "f32" : type == US_BF16 ? "bf16" : "f16"; }
static void run(const char* name, uint32_t type, int status, T result) {
  char text[56];
  snprintf(text, sizeof text, "%s %s", name, suffix(type));
  if (status) printf("  %s: %s\n", text, error_text());
  check(text, status == US_OK);
  if (!status) keep_result(text, result);
}
static const T NONE;

static void elementwise(uint32_t A) {
  T x = fresh(A, 1, 7, 37, 0, 0), y = fresh(A, 1, 7, 37, 0, 0), o = tensor(A, 7, 37, 0, 0), s = fresh(US_F32, 1, 37, 0, 0, 0);
  T u = tensor(A, 7, 37, 0, 0), h = tensor(A, 7, 37, 0, 0), n = fresh(US_F32, 1, 7, 0, 0, 0);
  const int32_t seeds[] = {12, 345};
  T seed = ints(2, seeds), f = tensor(US_F32, 7, 37, 0, 0);
  run("add", A, us(add)(&(us_add_args){o, x, y}), o);
  run("scale", A, us(scale)(&(us_scale_args){o, x, 1.5f}), o);
  run("scale_cols", A, us(scale_cols)(&(us_scale_cols_args){o, x, s}), o);
  run("copy", A, us(copy)(&(us_copy_args){f, x}), f);
  run("copy bytes", A, us(copy)(&(us_copy_args){o, x}), o);
  run("dropout", A, us(dropout)(&(us_dropout_args){o, x, seed, 3, 1u << 30, 1.25f}), o);
  run("noise", A, us(noise)(&(us_noise_args){o, x, n, seed, 4}), o);
  for (uint32_t act = 0; act < 3; act++) {
    run("glu", A, us(glu)(&(us_glu_args){o, x, act == 1 ? NONE : y, act}), o);
    run("glu_bwd h", A, us(glu_bwd)(&(us_glu_bwd_args){o, u, h, y, x, y, act}), h);
    keep_result("glu_bwd gate", o), keep_result("glu_bwd up", u);
  }
  if (A == US_F32) run("divide", A, us(divide)(&(us_divide_args){o, x, y}), o);
  let_go(x), let_go(y), let_go(o), let_go(s), let_go(u), let_go(h), let_go(n), let_go(seed), let_go(f);
}

static void norms(uint32_t A) {
  for (uint32_t kind = 0; kind < 2; kind++) {
    const uint32_t D = kind ? 515 : 640;
    T x = fresh(A, 1, 5, D, 0, 0), w = fresh(US_F32, 1, D, 0, 0, 0), b = fresh(US_F32, 1, D, 0, 0, 0), o = tensor(A, 5, D, 0, 0);
    T stat = tensor(US_F32, 5, 2, 0, 0), g = fresh(A, 1, 5, D, 0, 0), dx = fresh(A, 1, 5, D, 0, 0);
    T dw = fresh(US_F32, 1, D, 0, 0, 0), db = fresh(US_F32, 1, D, 0, 0, 0);
    run("norm", A, us(norm)(&(us_norm_args){o, stat, x, w, kind ? b : NONE, kind, 1e-5f, !kind}), o);
    keep_result("norm stat", stat);
    run("norm_bwd dx", A, us(norm_bwd)(&(us_norm_bwd_args){dx, dw, kind ? db : NONE, g, x, w, stat, kind, 1e-5f, !kind}), dx);
    keep_result("norm_bwd dw", dw), keep_result("norm_bwd db", db);
    let_go(x), let_go(w), let_go(b), let_go(o), let_go(stat), let_go(g), let_go(dx), let_go(dw), let_go(db);
  }
}

static void rows(uint32_t A) {
  const int32_t ids_[] = {3, 0, 3, 10, 3}, pos_[] = {0, 1, 2, 0, 900};
  T ids = ints(5, ids_), pos = ints(5, pos_), table = blocks(US_Q4_K, 11, 512), o = tensor(A, 5, 512, 0, 0);
  T d = fresh(US_F32, 1, 11, 512, 0, 0), x = fresh(A, 1, 5, 3, 10, 0), freqs = fresh(US_F32, 0.1f, 4, 0, 0, 0);
  T a = fresh(US_F32, 1, 3, 512, 0, 0), b = fresh(US_F32, 1, 11, 3, 0, 0), norm = tensor(US_F32, 11, 0, 0, 0);
  T sum = fresh(US_F32, 1, 512, 0, 0, 0);
  run("embed", A, us(embed)(&(us_embed_args){o, table, ids, 2}), o);
  run("embed_bwd", A, us(embed_bwd)(&(us_embed_bwd_args){d, o, ids, 2}), d);
  run("rope", A, us(rope)(&(us_rope_args){x, pos, freqs, -1, 1.5f}), x);
  run("row_norm", A, us(row_norm)(&(us_row_norm_args){norm, table, a, b, 0.5f}), norm);
  run("col_sum", A, us(col_sum)(&(us_col_sum_args){sum, o}), sum);
  run("col_dot", A, us(col_dot)(&(us_col_dot_args){sum, o, o}), sum);
  let_go(ids), let_go(pos), let_go(table), let_go(o), let_go(d), let_go(x), let_go(freqs), let_go(a), let_go(b);
  let_go(norm), let_go(sum);
}

static void loss(uint32_t A) {
  const int32_t y_[] = {0, 998, 5, 7};
  T z = fresh(A, 3, 4, 999, 0, 0), y = ints(4, y_), w = fresh(US_F32, 1, 4, 0, 0, 0), l = tensor(US_F32, 4, 0, 0, 0);
  const float weights[] = {1, 0.5f, 0, 2};
  load(w, weights, 16);
  run("cross_entropy", A, us(cross_entropy)(&(us_cross_entropy_args){l, z, y, w, 30, 0.1f, 1e-3f}), z);
  keep_result("cross_entropy loss", l);
  let_go(z), let_go(y), let_go(w), let_go(l);
}

static void matmuls(uint32_t A) {
  for (uint32_t t = 0; t < 4; t++) {
    T a = t & 1 ? fresh(A, 1, 67, 45, 0, 0) : fresh(A, 1, 45, 67, 0, 0), b = t & 2 ? fresh(A, 1, 39, 67, 0, 0) : fresh(A, 1, 67, 39, 0, 0);
    T c = fresh(A, 1, 45, 39, 0, 0), bias = fresh(US_F32, 1, 39, 0, 0, 0);
    run("matmul", A, us(matmul)(&(us_matmul_args){c, a, b, t ? bias : NONE, t & 1, t >> 1, 0.5f, (float)(t & 1)}), c);
    let_go(a), let_go(b), let_go(c), let_go(bias);
  }
  for (uint32_t t = 0; t < 4; t++) {  // few tiles, a long inner axis: split, and the parts added
    T a = t & 1 ? fresh(A, 1, 2100, 13, 0, 0) : fresh(A, 1, 13, 2100, 0, 0), b = t & 2 ? fresh(US_F32, 1, 16, 2100, 0, 0) : fresh(US_F32, 1, 2100, 16, 0, 0);
    T c = fresh(t == 3 ? US_F32 : A, 1, 13, 16, 0, 0), bias = fresh(US_F32, 1, 16, 0, 0, 0);
    run("matmul split", A, us(matmul)(&(us_matmul_args){c, a, b, t ? bias : NONE, t & 1, t >> 1, 0.5f, (float)(t & 1)}), c);
    let_go(a), let_go(b), let_go(c), let_go(bias);
  }
  T big = fresh(A, 1, 300, 70, 0, 0), weight = fresh(A, 1, 259, 70, 0, 0), out = tensor(US_F32, 300, 259, 0, 0);
  run("matmul of large tiles", A, us(matmul)(&(us_matmul_args){out, big, weight, NONE, 0, 1, 1, 0}), out);
  let_go(big), let_go(weight), let_go(out);
  static const uint32_t types[] = {US_Q4_0, US_Q4_1, US_Q5_0, US_Q5_1, US_Q8_0, US_Q2_K, US_Q3_K, US_Q4_K, US_Q5_K, US_Q6_K,
                                   US_IQ4_NL, US_IQ4_XS, US_NF4, US_FP8_E4M3};
  for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
    T w = blocks(types[i], 37, 256), few = fresh(A, 1, 3, 256, 0, 0), many = fresh(A, 1, 21, 37, 0, 0);
    T c = tensor(A, 3, 37, 0, 0), d = tensor(A, 21, 256, 0, 0);
    run("matmul of few rows", A, us(matmul)(&(us_matmul_args){c, few, w, NONE, 0, 1, 1, 0}), c);
    run("matmul of blocks", A, us(matmul)(&(us_matmul_args){d, many, w, NONE, 0, 0, 1, 0}), d);
    let_go(w), let_go(few), let_go(many), let_go(c), let_go(d);
  }
}

static void attention_of(uint32_t A, uint32_t d) {
  enum { N = 75, H = 4, K = 2 };
  const int32_t cu_[] = {0, 41, 41, 70};
  T cu = ints(4, cu_), q = fresh(A, 1, N, H, d, 0), k = fresh(A, 1, N, K, d, 0), v = fresh(A, 1, N, K, d, 0), o = tensor(A, N, H, d, 0);
  T lse = tensor(US_F32, H, N, 0, 0), g = fresh(A, 1, N, H, d, 0), dq = tensor(A, N, H, d, 0), dk = tensor(A, N, K, d, 0), dv = tensor(A, N, K, d, 0);
  const uint32_t window = d == 64 ? 13 : 0;
  const float cap = d == 40 ? 5 : 0;
  run("attention", A, us(attention)(&(us_attention_args){o, lse, q, k, v, cu, 41, 0.2f, window, cap}), o);
  keep_result("attention lse", lse);
  run("attention_bwd dq", A, us(attention_bwd)(&(us_attention_bwd_args){dq, dk, dv, g, q, k, v, o, lse, cu, 41, 0.2f, window, cap}), dq);
  keep_result("attention_bwd dk", dk), keep_result("attention_bwd dv", dv);
  let_go(cu), let_go(q), let_go(k), let_go(v), let_go(o), let_go(lse), let_go(g), let_go(dq), let_go(dk), let_go(dv);
}

static void caches(uint32_t A) {
  const int32_t seq_[] = {1, 0, 1}, pos_[] = {69, 3, 12};
  T kc = fresh(A, 1, 2, 70, 2, 20), vc = fresh(A, 1, 2, 70, 2, 20), k = fresh(A, 1, 3, 2, 20, 0), q = fresh(A, 1, 3, 4, 20, 0);
  T seq = ints(3, seq_), pos = ints(3, pos_), o = tensor(A, 3, 4, 20, 0);
  kc.shape[3] = vc.shape[3] = 20;
  run("cache_write", A, us(cache_write)(&(us_cache_write_args){kc, vc, k, k, seq, pos}), kc);
  run("attention_cached", A, us(attention_cached)(&(us_attention_cached_args){o, q, kc, vc, seq, pos, 0.3f, 0, 0}), o);
  run("attention_cached window", A, us(attention_cached)(&(us_attention_cached_args){o, q, kc, vc, seq, pos, 0.3f, 9, 5}), o);
  let_go(kc), let_go(vc), let_go(k), let_go(q), let_go(seq), let_go(pos), let_go(o);
}

static void optimizers(void) {
  const uint32_t n = 5 * 512;
  const float hyper_[] = {1e-3f, 0.9f, 0.99f, 1e-8f, 0.01f, 0.2f, 0.1f, 0.7f};
  T p = fresh(US_F32, 1, 5, 512, 0, 0), g = fresh(US_F32, 1, 5, 512, 0, 0), m = fresh(US_F32, 1, n, 0, 0, 0), v = tensor(US_F32, n, 0, 0, 0);
  T hyper = tensor(US_F32, 8, 0, 0, 0), sum = tensor(US_F32, 1, 0, 0, 0), m8 = tensor(US_U8, n, 0, 0, 0), v8 = tensor(US_U8, n, 0, 0, 0);
  T most = tensor(US_F32, 2, n / 256, 0, 0), codes = tensor(US_F32, 2, 256, 0, 0), row = tensor(US_F32, 5, 0, 0, 0), col = tensor(US_F32, 512, 0, 0, 0);
  T flat = p;
  flat.ndim = 1, flat.shape[0] = n, flat.shape[1] = 1;
  float code[512];
  for (int i = 0; i < 256; i++) code[i] = (float)(i - 128) / 127, code[256 + i] = (float)i / 255;
  load(hyper, hyper_, 32), load(codes, code, sizeof code);
  us(fill)(&(us_fill_args){v, 0.5f, 0}), us(fill)(&(us_fill_args){sum, 0.25f, 0}), us(fill)(&(us_fill_args){m8, 0, 140});
  us(fill)(&(us_fill_args){v8, 0, 9}), us(fill)(&(us_fill_args){most, 0.5f, 0}), us(fill)(&(us_fill_args){row, 0.5f, 0}), us(fill)(&(us_fill_args){col, 0.5f, 0});
  run("sum_squares", US_F32, us(sum_squares)(&(us_sum_squares_args){sum, g}), sum);
  run("clip_factor", US_F32, us(clip_factor)(&(us_clip_factor_args){hyper, sum, 1}), hyper);
  run("adamw", US_F32, us(adamw)(&(us_adamw_args){flat, g, m, v, hyper}), p);
  run("sgd", US_F32, us(sgd)(&(us_sgd_args){flat, g, m, hyper}), p);
  run("lion", US_F32, us(lion)(&(us_lion_args){flat, g, m, hyper}), p);
  run("adamw8", US_F32, us(adamw8)(&(us_adamw8_args){flat, g, m8, v8, most, codes, hyper}), p);
  keep_result("adamw8 m", m8), keep_result("adamw8 v", v8), keep_result("adamw8 absmax", most);
  run("adafactor", US_F32, us(adafactor)(&(us_adafactor_args){p, g, row, col, hyper}), p);
  run("adafactor whole", US_F32, us(adafactor)(&(us_adafactor_args){flat, g, NONE, v, hyper}), p);
  let_go(p), let_go(g), let_go(m), let_go(v), let_go(hyper), let_go(sum), let_go(m8), let_go(v8), let_go(most), let_go(codes);
  let_go(row), let_go(col);
}

void run_ops(void) {
  const uint32_t types[] = {US_F32, US_BF16, US_F16};
  const bool one = getenv("ABI_TEST_F32") != 0;
  for (int i = 0; i < (one ? 1 : 3); i++) {
    const uint32_t A = types[i];
    if (wanted("elementwise")) elementwise(A);
    if (wanted("norm")) norms(A);
    if (wanted("rows")) rows(A);
    if (wanted("loss")) loss(A);
    if (wanted("matmul")) matmuls(A);
    for (uint32_t d = 20; wanted("attention") && d <= 256; d = d == 20 ? 40 : d == 40 ? 64 : d == 64 ? 100 : d == 100 ? 256 : 999) attention_of(A, d);
    if (wanted("cache")) caches(A);
  }
  if (wanted("optimizer")) optimizers();
}
