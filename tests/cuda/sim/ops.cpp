// The operations beside matmul, for the fake: add, copy, fill and scale in whole numbers (kernels.cpp says why); of the others
// only which tensors they read and write, as a sum over all of them that depends on every byte. A tensor that cuda/host
// declares wrongly is then seen before or after the products it should have waited for.
#include <string.h>

#include <initializer_list>

#include "../../../cuda/host/kernels.h"
#include "../../../cuda/host/pending.h"
#include "activation.h"
#include "fake.h"
#include "mix.h"
#include "rotate.h"

namespace us {

int product(const Gemm& g);

namespace {

std::vector<fake::Bytes> bytes_of(std::initializer_list<Ten> list) {
  std::vector<fake::Bytes> all;
  for (const Ten& t : list) all.push_back({t.p, t.p ? t.bytes : 0});
  return all;
}
int mix(const char* name, std::initializer_list<Ten> outs, std::initializer_list<Ten> ins, uint32_t salt) {
  const std::vector<fake::Bytes> to = bytes_of(outs), from = bytes_of(ins);
  fake::launch(stream(), [=] { fake::mix(to, from, salt); });
  return launched(name);
}
using fake::bits;
uint32_t get(const Ten& t, size_t i) {
  uint32_t x = 0;
  const size_t w = t.dtype == F32 || t.dtype == I32 ? 4 : t.dtype == BF16 || t.dtype == F16 ? 2 : 1;
  memcpy(&x, t.p + (t.numel ? i * w % t.bytes : 0), w);
  return x;
}
void set(const Ten& t, size_t i, uint32_t x) {
  const size_t w = t.dtype == F32 || t.dtype == I32 ? 4 : t.dtype == BF16 || t.dtype == F16 ? 2 : 1;
  memcpy(t.p + i * w, &x, w);
}
template <class F> int each(const char* name, const Ten& out, F f) {
  fake::launch(stream(), [=] {
    for (size_t i = 0; i < out.numel; i++) set(out, i, f(i));
  });
  return launched(name);
}

}  // namespace

int add(const Ten& out, const Ten& a, const Ten& b) {
  return each("add", out, [=](size_t i) { return get(a, i) + get(b, i); });
}
int copy(const Ten& out, const Ten& x) {
  return each("copy", out, [=](size_t i) { return get(x, i); });
}
int scale(const Ten& out, const Ten& x, float f) {
  return each("scale", out, [=](size_t i) { return static_cast<uint32_t>(static_cast<int32_t>(f)) * get(x, i); });
}
int fill(const Ten& out, float value, int32_t integer) {
  const bool whole = out.dtype == I32 || out.dtype == U8;
  return each("fill", out, [=](size_t) { return static_cast<uint32_t>(whole ? integer : static_cast<int32_t>(value)); });
}

int embed(const Ten& out, const Ten& table, const Ten& ids, float s) { return mix("embed", {out}, {table, ids}, bits(s)); }
int embed_bwd(const Ten& dt, const Ten& dout, const Ten& ids, float s) { return mix("embed_bwd", {dt}, {dout, ids}, bits(s)); }
int norm(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, const Ten& b, int kind, float eps, bool plus) {
  return mix("norm", {out, stat}, {x, w, b}, fake::norm_salt(static_cast<uint32_t>(kind), eps, plus));
}
int norm_bwd(const Ten& dx, const Ten& dw, const Ten& db, const Ten& dout, const Ten& x, const Ten& w, const Ten& stat, int, bool) {
  return mix("norm_bwd", {dx, dw, db}, {dout, x, w, stat}, 5);
}
/** Row by row in whole numbers: a gradient over it may take x, rstd and w apart. */
int renorm(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, bool plus) {
  return each("renorm", out, [=](size_t i) {
    const size_t col = i % x.cols;
    return get(x, i) * get(stat, 2 * (i / x.cols) + 1) * (get(w, col) + plus) + (b.p ? get(b, col) : 0);
  });
}
namespace {
/** x [N,heads,d] turned in place. */
void turn(const Ten& x, const Rotation& r) {
  std::vector<uint32_t> values(x.numel);
  for (size_t i = 0; i < x.numel; i++) values[i] = get(x, i);
  fake::rotate(values.data(), x.shape[1] * x.shape[2], x.shape[0], x.shape[2], r);
  for (size_t i = 0; i < x.numel; i++) set(x, i, values[i]);
}
}  // namespace

int rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor) {
  if (!fake::turns(x, pos, freqs)) return mix("rope", {x}, {pos, freqs}, bits(sign));
  fake::launch(stream(), [=] {
    std::vector<uint32_t> table(2 * pos.numel * freqs.numel);
    fake::fill_table(table.data(), pos, freqs, factor);
    turn(x, {reinterpret_cast<const float*>(table.data()), static_cast<int>(freqs.numel), sign});
  });
  return launched("rope");
}
int rope_table(float* table, const Ten& pos, const Ten& freqs, float factor) {
  fake::launch(stream(), [=] { fake::fill_table(reinterpret_cast<uint32_t*>(table), pos, freqs, factor); });
  return launched("rope table");
}
bool rotates_sm90(size_t N, size_t d, size_t half, bool e4m3) { return d == 2 * half && (half == 8 || (half == 4 && !e4m3)) && N % d == 0; }
int attention(const Ten& out, const Ten& lse, const Ten& q, const Ten& k, const Ten& v, const Ten& cu, size_t, AttnOpts) {
  return mix("attention", {out, lse}, {q, k, v, cu}, 7);
}
bool attention_bwd_rotates(const Ten* t) {
  const Ten& q = t[4];
  return has_sm90() && q.dtype != F32 && q.ndim == 3 && t[0].ndim == 3 && t[1].ndim == 3 && (q.shape[2] == 8 || q.shape[2] == 16);
}
int attention_bwd(const Ten& dq, const Ten& dk, const Ten& dv, const Ten& dout, const Ten& q, const Ten& k, const Ten& v,
                  const Ten& out, const Ten& lse, const Ten& cu, size_t, AttnOpts o, Rotation of_dq, Rotation of_dk) {
  const uint32_t salt = bits(o.scale) + 3 * bits(o.softcap) + 5 * static_cast<uint32_t>(o.window);
  if (const int rc = mix("attention_bwd", {dq, dk, dv}, {dout, q, k, v, out, lse, cu}, salt)) return rc;
  for (const auto& [x, r] : {std::make_pair(dq, of_dq), std::make_pair(dk, of_dk)})
    if (r.table && 2 * static_cast<size_t>(r.half) != x.shape[2]) fake::broken("an attention_bwd that turns parts of heads");
    else if (r.table) fake::launch(stream(), [x = x, r = r] { turn(x, r); });
  return US_OK;
}
int cache_write(const Ten& kc, const Ten& vc, const Ten& k, const Ten& v, const Ten& seq, const Ten& pos) {
  return mix("cache_write", {kc, vc}, {k, v, seq, pos}, 9);
}
int attention_cached(const Ten& out, const Ten& q, const Ten& kc, const Ten& vc, const Ten& seq, const Ten& pos, AttnOpts) {
  return mix("attention_cached", {out}, {q, kc, vc, seq, pos}, 10);
}
// Element by element, since each may be written over the input of its place.
int glu(const Ten& h, const Ten& gate, const Ten& up, int act) {
  return each("glu", h, [=](size_t i) { return fake::activation(get(gate, i), get(up, i), static_cast<uint32_t>(act)); });
}
int glu_bwd(const Ten& dg, const Ten& du, const Ten& h, const Ten& dh, const Ten& gate, const Ten& up, int act) {
  fake::launch(stream(), [=] {
    for (size_t i = 0; i < h.numel; i++) {
      const uint32_t g = get(gate, i), u = up.p ? get(up, i) : 0, d = get(dh, i), a = static_cast<uint32_t>(act);
      set(dg, i, fake::gate_gradient(g, u, d)), set(h, i, fake::activation(g, u, a));
      if (du.p) set(du, i, fake::up_gradient(g, u, d));
    }
  });
  return launched("glu_bwd");
}
int cross_entropy(const Ten& loss, const Ten& logits, const Ten& target, const Ten& weight, float, float, float) {
  return mix("cross_entropy", {loss, logits}, {target, weight}, 13);
}
int sum_squares(const Ten& out, const Ten& g) { return mix("sum_squares", {out}, {g}, 14); }
int clip_factor(const Ten& hyper, const Ten& sum_sq, float) { return mix("clip_factor", {hyper}, {sum_sq}, 15); }
int adamw(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& hyper) { return mix("adamw", {p, m, v}, {g, hyper}, 16); }
int sgd(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper) { return mix("sgd", {p, m}, {g, hyper}, 17); }
int lion(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper) { return mix("lion", {p, m}, {g, hyper}, 18); }
int adamw8(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& absmax, const Ten& codes, const Ten& hyper) {
  return mix("adamw8", {p, m, v, absmax}, {g, codes, hyper}, 19);
}
int adafactor(const Ten& p, const Ten& g, const Ten& row, const Ten& col, const Ten& hyper) {
  return mix("adafactor", {p, row, col}, {g, hyper}, 20);
}
int noise(const Ten& out, const Ten& x, const Ten& magnitude, const Ten& seed, uint32_t id) {
  return mix("noise", {out}, {x, magnitude, seed}, id);
}
int col_sum(const Ten& out, const Ten& x) { return mix("col_sum", {out}, {x}, 22); }
int col_dot(const Ten& out, const Ten& a, const Ten& b) { return mix("col_dot", {out}, {a, b}, 23); }
int scale_cols(const Ten& out, const Ten& x, const Ten& s) { return mix("scale_cols", {out}, {x, s}, 24); }
int divide(const Ten& out, const Ten& a, const Ten& b) { return mix("divide", {out}, {a, b}, 26); }
int quantize_fp8(const Ten& out, const Ten& x, size_t from) { return mix("quantize_fp8", {out}, {x}, static_cast<uint32_t>(from)); }
int dropout(const Ten& out, const Ten& x, const Ten& seed, uint32_t id, uint32_t, float) { return mix("dropout", {out}, {x, seed}, id); }

/** Goes through scratch memory, so that a room that went away too early is noticed. */
int row_norm(const Ten& out, const Ten& w, const Ten& a, const Ten& b, float) {
  Ten room = w;
  room.p = static_cast<char*>(scratch(SCRATCH_A, w.bytes));
  if (!room.p) return US_MEMORY;
  fake::launch(stream(), [=] { memcpy(room.p, w.p, w.bytes); });
  if (const int rc = launched("row_norm")) return rc;
  return mix("row_norm", {out}, {room, a, b}, 25);
}

// As cuda/kernels/matmul.cu orders it: held back, or after what it meets.
int matmul(const Ten& c, const Ten& a, const Ten& b, const Ten& bias, bool trans_a, bool trans_b, float alpha, float beta) {
  Gemm g{a.p, b.p, bias.p, c.p, c.rows, c.cols, trans_a ? a.rows : a.cols, trans_a, trans_b,
         a.dtype, b.dtype, c.dtype, bias.dtype, alpha, beta, c.cols};
  if (a.dtype > F16 || c.dtype > F16) return unsupported("activations of element type", a.dtype > F16 ? a.dtype : c.dtype);
  if (g.M == 0 || g.N == 0) return US_OK;
  int rc;
  if (defer_product(g, rc)) return rc;
  const Span reads[] = {span_of(a), span_of(b), span_of(bias)}, writes[] = {span_of(c)};
  if ((rc = settle(reads, 3, writes, 1))) return rc;
  return product(g);
}

}  // namespace us
