// The operations as functions over resolved tensors; each lives in the kernel file of its name. They launch on
// us::stream() and return a status. Shapes and meanings: src/core/backend.ts.
#pragma once
#include "../kernels/rotation.h"
#include "library.h"

namespace us {

struct AttnOpts { float scale; int window; float softcap; };

int embed(const Ten& out, const Ten& table, const Ten& ids, float scale);
int embed_bwd(const Ten& dtable, const Ten& dout, const Ten& ids, float scale);
int norm(const Ten& out, const Ten& stat, const Ten& x, const Ten& w, const Ten& b, int kind, float eps, bool plus_one);
/** norm's out once more, from its stat. */
int renorm(const Ten& out, const Ten& x, const Ten& stat, const Ten& w, const Ten& b, bool plus_one);
int norm_bwd(const Ten& dx, const Ten& dw, const Ten& db, const Ten& dout, const Ten& x, const Ten& w, const Ten& stat,
             int kind, bool plus_one);
int matmul(const Ten& c, const Ten& a, const Ten& b, const Ten& bias, bool trans_a, bool trans_b, float alpha, float beta);
int rope(const Ten& x, const Ten& pos, const Ten& freqs, float sign, float factor);
/** cos and sin of pos[n] * freqs[i], times factor, in pairs [N][half]: what products that turn their sums read. */
int rope_table(float* table, const Ten& pos, const Ten& freqs, float factor);
int attention(const Ten& out, const Ten& lse, const Ten& q, const Ten& k, const Ten& v, const Ten& cu, size_t max_len,
              AttnOpts o);
int attention_bwd(const Ten& dq, const Ten& dk, const Ten& dv, const Ten& dout, const Ten& q, const Ten& k, const Ten& v,
                  const Ten& out, const Ten& lse, const Ten& cu, size_t max_len, AttnOpts o, Rotation of_dq = {}, Rotation of_dk = {});
/** Whether attention_bwd of these ten, in its order, can turn dq and dk, whole heads of them. */
bool attention_bwd_rotates(const Ten* t);
int cache_write(const Ten& kc, const Ten& vc, const Ten& k, const Ten& v, const Ten& seq, const Ten& pos);
int attention_cached(const Ten& out, const Ten& q, const Ten& kc, const Ten& vc, const Ten& seq, const Ten& pos, AttnOpts o);
int glu(const Ten& h, const Ten& gate, const Ten& up, int act);
int glu_bwd(const Ten& dgate, const Ten& dup, const Ten& h, const Ten& dh, const Ten& gate, const Ten& up, int act);
int add(const Ten& out, const Ten& a, const Ten& b);
int copy(const Ten& out, const Ten& x);
int fill(const Ten& out, float value, int32_t integer);
int scale(const Ten& out, const Ten& x, float factor);
int cross_entropy(const Ten& loss, const Ten& logits, const Ten& target, const Ten& weight, float softcap, float smoothing,
                  float z);
int sum_squares(const Ten& out, const Ten& g);
int clip_factor(const Ten& hyper, const Ten& sum_sq, float max_norm);
int adamw(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& hyper);
int sgd(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper);
int lion(const Ten& p, const Ten& g, const Ten& m, const Ten& hyper);
int adamw8(const Ten& p, const Ten& g, const Ten& m, const Ten& v, const Ten& absmax, const Ten& codes, const Ten& hyper);
int adafactor(const Ten& p, const Ten& g, const Ten& row, const Ten& col, const Ten& hyper);
int noise(const Ten& out, const Ten& x, const Ten& magnitude, const Ten& seed, uint32_t stream_id);
int col_sum(const Ten& out, const Ten& x);
int col_dot(const Ten& out, const Ten& a, const Ten& b);
int scale_cols(const Ten& out, const Ten& x, const Ten& s);
int row_norm(const Ten& out, const Ten& w, const Ten& a, const Ten& b, float scale);
int divide(const Ten& out, const Ten& a, const Ten& b);
/** Rows from..from + x.rows of an fp8_128 weight (kernels/fp8.h) from a dense x. */
int quantize_fp8(const Ten& out, const Ten& x, size_t from);
int dropout(const Ten& out, const Ten& x, const Ten& seed, uint32_t stream_id, uint32_t threshold, float factor);

}  // namespace us
