// The operations; core/backend.ts says what each computes. Generated from ffi/abi.ts by ffi/header.ts: do not edit.
#ifndef UNSLOTH_OPS_H
#define UNSLOTH_OPS_H
#include "unsloth.h"

#define US_OP_LIST \
  "us_embed:d1bf6d24" \
  " us_embed_bwd:2181783c" \
  " us_norm:23472ba4" \
  " us_norm_bwd:a35ddddd" \
  " us_matmul:1b027ade" \
  " us_rope:f385c1d6" \
  " us_attention:80c52b19" \
  " us_attention_bwd:3b30301e" \
  " us_cache_write:e48067ce" \
  " us_attention_cached:297d9dbb" \
  " us_glu:aa01d3f1" \
  " us_glu_bwd:7b8bc7d7" \
  " us_add:d925b1ca" \
  " us_copy:b8f4030c" \
  " us_scale:a4480b9b" \
  " us_cross_entropy:c5a83b90" \
  " us_sum_squares:6a00ad2c" \
  " us_clip_factor:fb05409d" \
  " us_adamw:08325eb6" \
  " us_sgd:a091e7e8" \
  " us_lion:f3ee35b5" \
  " us_adamw8:84981d12" \
  " us_adafactor:167a359d" \
  " us_noise:5a7f3e32" \
  " us_col_sum:af1bf531" \
  " us_col_dot:2c49af5f" \
  " us_scale_cols:eb62154b" \
  " us_row_norm:0ca04ff9" \
  " us_divide:7709fb48" \
  " us_dropout:4b612779" \
  " us_quantize_fp8:6d6a6b33" \
  " us_host_slot:c1a3ad6c" \
  " us_stash:9dcd64fb" \
  " us_fetch:307f1eca" \
  " us_slot_wait:b00a6ae3"

// Exports an operation that this library does not have. us_lacks is the library's own: it keeps a sentence for
// us_last_error that names the symbol, and returns US_UNSUPPORTED.
int32_t us_lacks(const char* symbol);
#define US_LACKS(name) \
  US_API int32_t name(const name##_args* a) { (void)a; return us_lacks(#name); }

typedef struct {
  us_tensor out; // = [N,D]
  us_tensor table; // [V,D] any weight type
  us_tensor ids; // i32 [N]
  float scale;
} us_embed_args;
US_API int32_t us_embed(const us_embed_args*);

typedef struct {
  us_tensor d_table; // += f32 [V,D]
  us_tensor d_out; // [N,D]
  us_tensor ids; // i32 [N]
  float scale;
} us_embed_bwd_args;
US_API int32_t us_embed_bwd(const us_embed_bwd_args*);

typedef struct {
  us_tensor out; // = [N,D]
  us_tensor stat; // = f32 [N,2] mean and 1/std
  us_tensor x; // [N,D]
  us_tensor w; // [D]
  us_tensor b; // or none; [D]
  uint32_t kind; // US_RMS or US_LAYER
  float eps;
  uint32_t plus_one; // 1: the weight is 1 + w
} us_norm_args;
US_API int32_t us_norm(const us_norm_args*);

typedef struct {
  us_tensor dx; // += [N,D]
  us_tensor dw; // or none; += f32 [D]
  us_tensor db; // or none; += f32 [D]
  us_tensor d_out; // [N,D]
  us_tensor x; // [N,D]
  us_tensor w; // [D]
  us_tensor stat; // f32 [N,2]
  uint32_t kind; // US_RMS or US_LAYER
  float eps;
  uint32_t plus_one; // 1: the weight is 1 + w
} us_norm_bwd_args;
US_API int32_t us_norm_bwd(const us_norm_bwd_args*);

typedef struct {
  us_tensor c; // = [M,N]; leading axes flattened
  us_tensor a; // [M,K], or [K,M] with trans_a
  us_tensor b; // [K,N], or [N,K] with trans_b; any weight type
  us_tensor bias; // or none; [N]
  uint32_t trans_a;
  uint32_t trans_b;
  float alpha;
  float beta; // 0 or 1; c is not read when 0
} us_matmul_args;
US_API int32_t us_matmul(const us_matmul_args*);

typedef struct {
  us_tensor x; // [N,heads,d] in place
  us_tensor pos; // i32 [N]
  us_tensor freqs; // f32 [rotary/2]
  int32_t sign; // 1 or -1
  float factor;
} us_rope_args;
US_API int32_t us_rope(const us_rope_args*);

typedef struct {
  us_tensor out; // = [N,H,d]
  us_tensor lse; // = f32 [H,N]
  us_tensor q; // [N,H,d]
  us_tensor k; // [N,K,d]
  us_tensor v; // [N,K,d]
  us_tensor cu; // i32 [S+1]
  uint32_t max_len; // bound of the sequences' lengths
  float scale;
  uint32_t window; // keys a query sees, itself included; 0 = all
  float softcap; // 0 = off
} us_attention_args;
US_API int32_t us_attention(const us_attention_args*);

typedef struct {
  us_tensor dq; // = [N,H,d]
  us_tensor dk; // = [N,K,d]
  us_tensor dv; // = [N,K,d]
  us_tensor d_out; // [N,H,d]
  us_tensor q; // [N,H,d]
  us_tensor k; // [N,K,d]
  us_tensor v; // [N,K,d]
  us_tensor out; // [N,H,d]
  us_tensor lse; // f32 [H,N]
  us_tensor cu; // i32 [S+1]
  uint32_t max_len; // bound of the sequences' lengths
  float scale;
  uint32_t window; // keys a query sees, itself included; 0 = all
  float softcap; // 0 = off
} us_attention_bwd_args;
US_API int32_t us_attention_bwd(const us_attention_bwd_args*);

typedef struct {
  us_tensor kc; // [S,L,K,d]
  us_tensor vc; // [S,L,K,d]
  us_tensor k; // [N,K,d]
  us_tensor v; // [N,K,d]
  us_tensor seq; // i32 [N]
  us_tensor pos; // i32 [N]
} us_cache_write_args;
US_API int32_t us_cache_write(const us_cache_write_args*);

typedef struct {
  us_tensor out; // = [N,H,d]
  us_tensor q; // [N,H,d]
  us_tensor kc; // [S,L,K,d]
  us_tensor vc; // [S,L,K,d]
  us_tensor seq; // i32 [N]
  us_tensor pos; // i32 [N]
  float scale;
  uint32_t window; // keys a query sees, itself included; 0 = all
  float softcap; // 0 = off
} us_attention_cached_args;
US_API int32_t us_attention_cached(const us_attention_cached_args*);

typedef struct {
  us_tensor h; // = [N,F]
  us_tensor gate; // [N,F]
  us_tensor up; // or none; [N,F]
  uint32_t act; // US_SILU, US_GELU or US_GELU_TANH
} us_glu_args;
US_API int32_t us_glu(const us_glu_args*);

typedef struct {
  us_tensor d_gate; // = [N,F], may be gate
  us_tensor d_up; // or none; = [N,F], may be up
  us_tensor h; // = [N,F]
  us_tensor dh; // [N,F]
  us_tensor gate; // [N,F]
  us_tensor up; // or none; [N,F]
  uint32_t act; // US_SILU, US_GELU or US_GELU_TANH
} us_glu_bwd_args;
US_API int32_t us_glu_bwd(const us_glu_bwd_args*);

typedef struct {
  us_tensor out; // =, may be a or b
  us_tensor a;
  us_tensor b;
} us_add_args;
US_API int32_t us_add(const us_add_args*);

typedef struct {
  us_tensor out; // = any dense type
  us_tensor x; // any type
} us_copy_args;
US_API int32_t us_copy(const us_copy_args*);

typedef struct {
  us_tensor out; // =, may be x
  us_tensor x;
  float factor;
} us_scale_args;
US_API int32_t us_scale(const us_scale_args*);

typedef struct {
  us_tensor loss; // = f32 [N]
  us_tensor logits; // [N,V] in, gradient out
  us_tensor target; // i32 [N]; not read where weight is 0
  us_tensor weight; // f32 [N]
  float softcap; // 0 = off
  float smoothing;
  float z_loss;
} us_cross_entropy_args;
US_API int32_t us_cross_entropy(const us_cross_entropy_args*);

typedef struct {
  us_tensor out; // += f32 [1]
  us_tensor g; // f32
} us_sum_squares_args;
US_API int32_t us_sum_squares(const us_sum_squares_args*);

typedef struct {
  us_tensor hyper; // f32 [8]; word 7 is written
  us_tensor sum_sq; // f32 [1]
  float max_norm; // 0 = off
} us_clip_factor_args;
US_API int32_t us_clip_factor(const us_clip_factor_args*);

typedef struct {
  us_tensor p; // f32 in place
  us_tensor g; // f32
  us_tensor m; // f32 in place
  us_tensor v; // f32 in place
  us_tensor hyper; // f32 [8] lr, b1, b2, eps, weight decay, 1-b1^t, 1-b2^t, clip factor
} us_adamw_args;
US_API int32_t us_adamw(const us_adamw_args*);

typedef struct {
  us_tensor p; // f32 in place
  us_tensor g; // f32
  us_tensor m; // or none; f32 in place
  us_tensor hyper; // f32 [8] as adamw's: lr, b1 (momentum), -, -, weight decay, -, -, clip factor
} us_sgd_args;
US_API int32_t us_sgd(const us_sgd_args*);

typedef struct {
  us_tensor p; // f32 in place
  us_tensor g; // f32
  us_tensor m; // f32 in place
  us_tensor hyper; // f32 [8] as adamw's: lr, b1, b2, -, weight decay, -, -, clip factor
} us_lion_args;
US_API int32_t us_lion(const us_lion_args*);

typedef struct {
  us_tensor p; // f32 [n] in place, n a multiple of 256
  us_tensor g; // f32 [n]
  us_tensor m; // u8 [n] in place
  us_tensor v; // u8 [n] in place
  us_tensor absmax; // f32 [2,n/256] in place
  us_tensor codes; // f32 [2,256] ascending
  us_tensor hyper; // f32 [8] as adamw's
} us_adamw8_args;
US_API int32_t us_adamw8(const us_adamw8_args*);

typedef struct {
  us_tensor p; // f32 [O,I] in place
  us_tensor g; // f32 [O,I]
  us_tensor row; // or none; f32 [O] in place
  us_tensor col; // f32 [I] in place; [O*I] without row
  us_tensor hyper; // f32 [8] lr, -, b2 of this step, eps, weight decay, d, -, clip factor
} us_adafactor_args;
US_API int32_t us_adafactor(const us_adafactor_args*);

typedef struct {
  us_tensor out; // = [N,D], may be x
  us_tensor x; // [N,D]
  us_tensor magnitude; // f32 [N]
  us_tensor seed; // i32 [2]
  uint32_t stream;
} us_noise_args;
US_API int32_t us_noise(const us_noise_args*);

typedef struct {
  us_tensor out; // += f32 [D]
  us_tensor x; // [N,D]
} us_col_sum_args;
US_API int32_t us_col_sum(const us_col_sum_args*);

typedef struct {
  us_tensor out; // += f32 [D]
  us_tensor a; // [N,D]
  us_tensor b; // [N,D]
} us_col_dot_args;
US_API int32_t us_col_dot(const us_col_dot_args*);

typedef struct {
  us_tensor out; // = [N,D], may be x
  us_tensor x; // [N,D]
  us_tensor s; // f32 [D]
} us_scale_cols_args;
US_API int32_t us_scale_cols(const us_scale_cols_args*);

typedef struct {
  us_tensor out; // = f32 [O]
  us_tensor w; // [O,I] any weight type
  us_tensor a; // f32 [R,I]
  us_tensor b; // f32 [O,R]
  float scale;
} us_row_norm_args;
US_API int32_t us_row_norm(const us_row_norm_args*);

typedef struct {
  us_tensor out; // = f32
  us_tensor a; // f32
  us_tensor b; // f32
} us_divide_args;
US_API int32_t us_divide(const us_divide_args*);

typedef struct {
  us_tensor out; // =, may be x
  us_tensor x;
  us_tensor seed; // i32 [2]
  uint32_t stream;
  uint32_t threshold; // an element is kept when its random word is at or over this
  float factor; // 1 / (1 - p)
} us_dropout_args;
US_API int32_t us_dropout(const us_dropout_args*);

typedef struct {
  us_tensor out; // = fp8_128 [R,C], rows from..from+n
  us_tensor x; // [n,C]
  uint32_t from; // a multiple of 128
} us_quantize_fp8_args;
US_API int32_t us_quantize_fp8(const us_quantize_fp8_args*);

typedef struct {
  uint32_t slot;
  uint32_t bytes_lo; // pinned host memory; 0: what the slot had is freed
  uint32_t bytes_hi;
} us_host_slot_args;
US_API int32_t us_host_slot(const us_host_slot_args*);

typedef struct {
  uint32_t slot; // written beside what is launched next
  us_tensor x; // unchanged until us_slot_wait
} us_stash_args;
US_API int32_t us_stash(const us_stash_args*);

typedef struct {
  us_tensor out; // =, not to be used until us_slot_wait
  uint32_t slot;
} us_fetch_args;
US_API int32_t us_fetch(const us_fetch_args*);

typedef struct {
  uint32_t slot; // what is launched next runs after its last copy
} us_slot_wait_args;
US_API int32_t us_slot_wait(const us_slot_wait_args*);
#endif
