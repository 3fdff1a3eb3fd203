// The operations of the ABI: each looks its tensors up under the lock and calls the kernel file's function.
#include <initializer_list>

#include "../../ffi/unsloth_extras.h"
#include "kernels.h"
#include "pending.h"
#include "state.h"

using namespace us;

namespace {

/** A tensor argument: read, or written (perhaps read too); absent ones where `optional`. */
struct Arg {
  const us_tensor& t;
  bool written, optional;
  Arg(const us_tensor& t, bool written = false, bool optional = false) : t(t), written(written), optional(optional) {}
};
Arg out(const us_tensor& t) { return {t, true}; }
Arg maybe(const us_tensor& t) { return {t, false, true}; }
Arg maybe_out(const us_tensor& t) { return {t, true, true}; }

/** Most tensors an operation takes (attention_bwd has 10). */
constexpr int MAX_TENSORS = 12;

/** Looks the tensors up under the lock and runs; products that wait for these tensors first, unless `run` sees to that. */
template <bool SETTLE = true, class Run> int32_t op(std::initializer_list<Arg> args, Run run) {
  State& s = state();
  std::lock_guard<std::mutex> hold(s.lock);
  if (const int rc = enter(s)) return rc;
  Ten t[MAX_TENSORS];
  Span reads[MAX_TENSORS], writes[MAX_TENSORS];
  int n = 0, r = 0, w = 0;
  for (const Arg& a : args) {
    if (const int rc = resolve(a.t, a.optional, t[n])) return rc;
    if (a.written) writes[w++] = span_of(t[n++]);
    else reads[r++] = span_of(t[n++]);
  }
  if (SETTLE)
    if (const int rc = settle(reads, r, writes, w)) return rc;
  return run(t);
}

/** Activations of one operation share one type; the kernels rely on it. */
template <class... T> int one_type(const char* name, const Ten& first, const T&... rest) {
  if (((!rest || rest.dtype == first.dtype) && ...)) return US_OK;
  return fail(US_UNSUPPORTED, "Cannot run %s on CUDA: its activations are of different types", name);
}
#define ONE_TYPE(...) \
  if (const int rc = one_type(__VA_ARGS__)) return rc

}  // namespace

US_API int32_t us_embed(const us_embed_args* a) {
  return op({out(a->out), a->table, a->ids}, [&](const Ten* t) { return embed(t[0], t[1], t[2], a->scale); });
}

US_API int32_t us_embed_bwd(const us_embed_bwd_args* a) {
  return op({out(a->d_table), a->d_out, a->ids}, [&](const Ten* t) { return embed_bwd(t[0], t[1], t[2], a->scale); });
}

US_API int32_t us_norm(const us_norm_args* a) {
  return op({out(a->out), out(a->stat), a->x, a->w, maybe(a->b)}, [&](const Ten* t) {
    ONE_TYPE("norm", t[0], t[2]);
    int rc;
    if (defer_norm(t[0], t[1], t[2], t[3], t[4], static_cast<int>(a->kind), a->eps, a->plus_one != 0, rc)) return rc;
    return norm(t[0], t[1], t[2], t[3], t[4], static_cast<int>(a->kind), a->eps, a->plus_one != 0);
  });
}

US_API int32_t us_renorm(us_renorm_args* a) {
  return op({out(a->out), a->x, a->stat, a->w, maybe(a->b)}, [&](const Ten* t) {
    ONE_TYPE("renorm", t[0], t[1]);
    int rc;
    if (defer_renorm(t[0], t[1], t[2], t[3], t[4], a->plus_one != 0, rc)) return rc;
    return renorm(t[0], t[1], t[2], t[3], t[4], a->plus_one != 0);
  });
}

US_API int32_t us_norm_bwd(const us_norm_bwd_args* a) {
  return op({out(a->dx), maybe_out(a->dw), maybe_out(a->db), a->d_out, a->x, a->w, a->stat}, [&](const Ten* t) {
    ONE_TYPE("norm_bwd", t[0], t[3], t[4]);
    return norm_bwd(t[0], t[1], t[2], t[3], t[4], t[5], t[6], static_cast<int>(a->kind), a->plus_one != 0);
  });
}

US_API int32_t us_matmul(const us_matmul_args* a) {
  return op<false>({out(a->c), a->a, a->b, maybe(a->bias)}, [&](const Ten* t) {
    return matmul(t[0], t[1], t[2], t[3], a->trans_a != 0, a->trans_b != 0, a->alpha, a->beta);
  });
}

US_API int32_t us_rope(const us_rope_args* a) {
  return op<false>({out(a->x), a->pos, a->freqs}, [&](const Ten* t) {
    const float sign = static_cast<float>(a->sign);
    int rc;
    if (defer_rope(t[0], t[1], t[2], sign, a->factor, rc)) return rc;
    const Span x = span_of(t[0]), by[] = {span_of(t[1]), span_of(t[2])};
    rc = settle(by, 2, &x, 1);
    return rc ? rc : rope(t[0], t[1], t[2], sign, a->factor);
  });
}

US_API int32_t us_attention(const us_attention_args* a) {
  return op({out(a->out), out(a->lse), a->q, a->k, a->v, a->cu}, [&](const Ten* t) {
    ONE_TYPE("attention", t[0], t[2], t[3], t[4]);
    return attention(t[0], t[1], t[2], t[3], t[4], t[5], a->max_len, {a->scale, static_cast<int>(a->window), a->softcap});
  });
}

US_API int32_t us_attention_bwd(const us_attention_bwd_args* a) {
  return op({out(a->dq), out(a->dk), out(a->dv), a->d_out, a->q, a->k, a->v, a->out, a->lse, a->cu}, [&](const Ten* t) {
    ONE_TYPE("attention_bwd", t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
    const AttnOpts o{a->scale, static_cast<int>(a->window), a->softcap};
    int rc;
    if (defer_attention_bwd(t, o, rc)) return rc;
    return attention_bwd(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], a->max_len, o);
  });
}

US_API int32_t us_cache_write(const us_cache_write_args* a) {
  return op({out(a->kc), out(a->vc), a->k, a->v, a->seq, a->pos}, [&](const Ten* t) {
    ONE_TYPE("cache_write", t[0], t[1], t[2], t[3]);
    return cache_write(t[0], t[1], t[2], t[3], t[4], t[5]);
  });
}

US_API int32_t us_attention_cached(const us_attention_cached_args* a) {
  return op({out(a->out), a->q, a->kc, a->vc, a->seq, a->pos}, [&](const Ten* t) {
    ONE_TYPE("attention_cached", t[0], t[1], t[2], t[3]);
    return attention_cached(t[0], t[1], t[2], t[3], t[4], t[5], {a->scale, static_cast<int>(a->window), a->softcap});
  });
}

US_API int32_t us_glu(const us_glu_args* a) {
  return op({out(a->h), a->gate, maybe(a->up)}, [&](const Ten* t) {
    ONE_TYPE("glu", t[0], t[1], t[2]);
    int rc;
    if (defer_glu(t[0], Ten(), t[1], t[2], Ten(), Ten(), static_cast<int>(a->act), rc)) return rc;
    return glu(t[0], t[1], t[2], static_cast<int>(a->act));
  });
}

US_API int32_t us_glu_bwd(const us_glu_bwd_args* a) {
  return op({out(a->d_gate), maybe_out(a->d_up), out(a->h), a->dh, a->gate, maybe(a->up)}, [&](const Ten* t) {
    ONE_TYPE("glu_bwd", t[0], t[1], t[2], t[3], t[4], t[5]);
    int rc;
    if (defer_glu(t[2], t[3], t[4], t[5], t[0], t[1], static_cast<int>(a->act), rc)) return rc;
    return glu_bwd(t[0], t[1], t[2], t[3], t[4], t[5], static_cast<int>(a->act));
  });
}

US_API int32_t us_forget(us_forget_args* a) {
  return op<false>({a->x}, [&](const Ten* t) { return forget(span_of(t[0])), US_OK; });
}

US_API int32_t us_add(const us_add_args* a) {
  return op<false>({out(a->out), a->a, a->b}, [&](const Ten* t) {
    ONE_TYPE("add", t[0], t[1], t[2]);
    if (t[0].p == t[1].p && defer_add(t[0], t[2])) return US_OK + 0;
    if (t[0].p == t[2].p && defer_add(t[0], t[1])) return US_OK + 0;
    const Span reads[] = {span_of(t[1]), span_of(t[2])}, writes[] = {span_of(t[0])};
    const int rc = settle(reads, 2, writes, 1);
    return rc ? rc : add(t[0], t[1], t[2]);
  });
}

US_API int32_t us_copy(const us_copy_args* a) {
  return op({out(a->out), a->x}, [&](const Ten* t) { return copy(t[0], t[1]); });
}

US_API int32_t us_scale(const us_scale_args* a) {
  return op({out(a->out), a->x}, [&](const Ten* t) {
    ONE_TYPE("scale", t[0], t[1]);
    return scale(t[0], t[1], a->factor);
  });
}

US_API int32_t us_cross_entropy(const us_cross_entropy_args* a) {
  return op({out(a->loss), out(a->logits), a->target, a->weight}, [&](const Ten* t) {
    return cross_entropy(t[0], t[1], t[2], t[3], a->softcap, a->smoothing, a->z_loss);
  });
}

US_API int32_t us_sum_squares(const us_sum_squares_args* a) {
  return op({out(a->out), a->g}, [&](const Ten* t) { return sum_squares(t[0], t[1]); });
}

US_API int32_t us_clip_factor(const us_clip_factor_args* a) {
  return op({out(a->hyper), a->sum_sq}, [&](const Ten* t) { return clip_factor(t[0], t[1], a->max_norm); });
}

US_API int32_t us_adamw(const us_adamw_args* a) {
  return op({out(a->p), a->g, out(a->m), out(a->v), a->hyper}, [&](const Ten* t) { return adamw(t[0], t[1], t[2], t[3], t[4]); });
}

US_API int32_t us_sgd(const us_sgd_args* a) {
  return op({out(a->p), a->g, maybe_out(a->m), a->hyper}, [&](const Ten* t) { return sgd(t[0], t[1], t[2], t[3]); });
}

US_API int32_t us_lion(const us_lion_args* a) {
  return op({out(a->p), a->g, out(a->m), a->hyper}, [&](const Ten* t) { return lion(t[0], t[1], t[2], t[3]); });
}

US_API int32_t us_adamw8(const us_adamw8_args* a) {
  return op({out(a->p), a->g, out(a->m), out(a->v), out(a->absmax), a->codes, a->hyper},
            [&](const Ten* t) { return adamw8(t[0], t[1], t[2], t[3], t[4], t[5], t[6]); });
}

US_API int32_t us_adafactor(const us_adafactor_args* a) {
  return op({out(a->p), a->g, maybe_out(a->row), out(a->col), a->hyper},
            [&](const Ten* t) { return adafactor(t[0], t[1], t[2], t[3], t[4]); });
}

US_API int32_t us_noise(const us_noise_args* a) {
  return op({out(a->out), a->x, a->magnitude, a->seed}, [&](const Ten* t) {
    ONE_TYPE("noise", t[0], t[1]);
    return noise(t[0], t[1], t[2], t[3], a->stream);
  });
}

US_API int32_t us_col_sum(const us_col_sum_args* a) {
  return op({out(a->out), a->x}, [&](const Ten* t) { return col_sum(t[0], t[1]); });
}

US_API int32_t us_col_dot(const us_col_dot_args* a) {
  return op({out(a->out), a->a, a->b}, [&](const Ten* t) {
    ONE_TYPE("col_dot", t[1], t[2]);
    return col_dot(t[0], t[1], t[2]);
  });
}

US_API int32_t us_scale_cols(const us_scale_cols_args* a) {
  return op({out(a->out), a->x, a->s}, [&](const Ten* t) {
    ONE_TYPE("scale_cols", t[0], t[1]);
    return scale_cols(t[0], t[1], t[2]);
  });
}

US_API int32_t us_row_norm(const us_row_norm_args* a) {
  return op({out(a->out), a->w, a->a, a->b}, [&](const Ten* t) { return row_norm(t[0], t[1], t[2], t[3], a->scale); });
}

US_API int32_t us_divide(const us_divide_args* a) {
  return op({out(a->out), a->a, a->b}, [&](const Ten* t) { return divide(t[0], t[1], t[2]); });
}

US_API int32_t us_quantize_fp8(const us_quantize_fp8_args* a) {
  return op({out(a->out), a->x}, [&](const Ten* t) { return quantize_fp8(t[0], t[1], a->from); });
}

US_API int32_t us_dropout(const us_dropout_args* a) {
  return op({out(a->out), a->x, a->seed}, [&](const Ten* t) {
    ONE_TYPE("dropout", t[0], t[1]);
    return dropout(t[0], t[1], t[2], a->stream, a->threshold, a->factor);
  });
}
