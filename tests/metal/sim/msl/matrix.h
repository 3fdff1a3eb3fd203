// simdgroup_matrix, in two forms: two elements a lane in the layout of Apple GPUs, or all in lane 0 (MSL_SGM_LEADER).
#pragma once
namespace metal {
// Lane l holds the elements (row, col) and (row, col + 1) with the layout that Apple GPUs use (as MLX relies on it).
inline unsigned __sgm_row(unsigned l) { unsigned q = l / 4; return (q & 4) + (l / 2) % 4; }
inline unsigned __sgm_col(unsigned l) { unsigned q = l / 4; return (q & 2) * 2 + (l % 2) * 2; }
#ifndef MSL_SGM_LEADER
template <typename T, int Cols, int Rows = Cols> struct simdgroup_matrix {
    static_assert(Cols == 8 && Rows == 8, "Metal has 8x8 simdgroup matrices only");
    vec<T, 2> e;
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T diagonal) { unsigned l = msl_lane(), r = __sgm_row(l), c = __sgm_col(l); e = vec<T, 2>{r == c ? diagonal : T(0), r == c + 1 ? diagonal : T(0)}; }
    void __fill(T v) { e = vec<T, 2>{v, v}; }
    vec<T, 2> &thread_elements() { return e; }
    const vec<T, 2> &thread_elements() const { return e; }
};
#else
// MSL_SGM_LEADER: lane 0 holds the whole matrix and does the work of its simdgroup, the other lanes pass by: no rendezvous,
// so ten times the speed. Legal because an 8x8 operation is uniform over the simdgroup, and what it reads from memory must
// have been made visible by a barrier anyway. thread_elements() does not exist here; kernels that use it need the other form.
template <typename T, int Cols, int Rows = Cols> struct simdgroup_matrix {
    static_assert(Cols == 8 && Rows == 8, "Metal has 8x8 simdgroup matrices only");
    typedef vec<T, 8> row;
    row e[8];
    simdgroup_matrix() {}
    explicit simdgroup_matrix(T diagonal) { if (!msl_lane()) for (int i = 0; i < 8; ++i) for (int j = 0; j < 8; ++j) e[i][j] = i == j ? diagonal : T(0); }
    simdgroup_matrix(const simdgroup_matrix &o) { if (!msl_lane()) __builtin_memcpy(e, o.e, sizeof e); }
    simdgroup_matrix &operator=(const simdgroup_matrix &o) { if (!msl_lane()) __builtin_memcpy(e, o.e, sizeof e); return *this; }
    void __fill(T v) { if (!msl_lane()) for (int i = 0; i < 8; ++i) e[i] = (row)v; }
};
#endif
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
template <typename T, int C, int R = C> inline simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T v) { simdgroup_matrix<T, C, R> m; m.__fill(v); return m; }
#ifndef MSL_SGM_LEADER
// P is a pointer in any address space.
template <typename T, typename P> inline void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, P src, ulong stride = 8, ulong2 origin = (ulong2)(0), bool transpose = false) {
    unsigned l = msl_lane(), r = __sgm_row(l), c = __sgm_col(l);
    for (unsigned i = 0; i < 2; ++i) d.e[i] = transpose ? src[(origin.x + c + i) * stride + origin.y + r] : src[(origin.y + r) * stride + origin.x + c + i];
}
template <typename T, typename P> inline void simdgroup_store(simdgroup_matrix<T, 8, 8> a, P dst, ulong stride = 8, ulong2 origin = (ulong2)(0), bool transpose = false) {
    unsigned l = msl_lane(), r = __sgm_row(l), c = __sgm_col(l);
    for (unsigned i = 0; i < 2; ++i) (transpose ? dst[(origin.x + c + i) * stride + origin.y + r] : dst[(origin.y + r) * stride + origin.x + c + i]) = a.e[i];
}
#pragma clang attribute push(__attribute__((no_sanitize("thread"))), apply_to = function)   // the exchange itself is no race
struct __mma_in { float a[2], b[2], c[2]; };
template <typename D> void __mma(void *s, unsigned) {
    typedef float f8 __attribute__((ext_vector_type(8)));
    alignas(32) float A[8][8], B[8][8], C[8][8];
    for (unsigned l = 0; l < 32; ++l) {
        __mma_in &m = __slot<__mma_in>(s, l);
        unsigned r = __sgm_row(l), c = __sgm_col(l);
        A[r][c] = m.a[0]; A[r][c + 1] = m.a[1]; B[r][c] = m.b[0]; B[r][c + 1] = m.b[1]; C[r][c] = m.c[0]; C[r][c + 1] = m.c[1];
    }
    f8 b[8];
    for (int k = 0; k < 8; ++k) b[k] = *(f8 *)B[k];
    for (int r = 0; r < 8; ++r) {
        f8 acc = *(f8 *)C[r];
        for (int k = 0; k < 8; ++k) acc = __builtin_elementwise_fma((f8)A[r][k], b[k], acc);
        *(f8 *)C[r] = acc;
    }
    for (unsigned l = 0; l < 32; ++l) { __mma_in &m = __slot<__mma_in>(s, l); unsigned r = __sgm_row(l), c = __sgm_col(l); m.c[0] = (float)(D)C[r][c]; m.c[1] = (float)(D)C[r][c + 1]; }
}
template <typename D, typename A, typename B, typename C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c) {
    __mma_in in = {{(float)a.e[0], (float)a.e[1]}, {(float)b.e[0], (float)b.e[1]}, {(float)c.e[0], (float)c.e[1]}};
    __mma_in &o = *(__mma_in *)msl_simd_begin();
    o = in;
    msl_simd_end("simdgroup_multiply_accumulate", __mma<D>, nullptr);
    d.e = vec<D, 2>{(D)o.c[0], (D)o.c[1]};
}
#pragma clang attribute pop
#else
template <typename T, typename P> inline void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, P src, ulong stride = 8, ulong2 origin = (ulong2)(0), bool transpose = false) {
    if (msl_lane()) return;
    if (transpose) for (unsigned r = 0; r < 8; ++r) for (unsigned c = 0; c < 8; ++c) d.e[r][c] = src[(origin.x + c) * stride + origin.y + r];
    else for (unsigned r = 0; r < 8; ++r) for (unsigned c = 0; c < 8; ++c) d.e[r][c] = src[(origin.y + r) * stride + origin.x + c];
}
template <typename T, typename P> inline void simdgroup_store(const simdgroup_matrix<T, 8, 8> &a, P dst, ulong stride = 8, ulong2 origin = (ulong2)(0), bool transpose = false) {
    if (msl_lane()) return;
    for (unsigned r = 0; r < 8; ++r) for (unsigned c = 0; c < 8; ++c) (transpose ? dst[(origin.x + c) * stride + origin.y + r] : dst[(origin.y + r) * stride + origin.x + c]) = a.e[r][c];
}
template <typename D, typename A, typename B, typename C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a, const simdgroup_matrix<B, 8, 8> &b, const simdgroup_matrix<C, 8, 8> &c) {
    if (msl_lane()) return;
    typedef vec<float, 8> f8;
    f8 bb[8];
    for (int k = 0; k < 8; ++k) bb[k] = __builtin_convertvector(b.e[k], f8);
    for (int r = 0; r < 8; ++r) {
        f8 acc = __builtin_convertvector(c.e[r], f8);
        for (int k = 0; k < 8; ++k) acc = __builtin_elementwise_fma((f8)(float)a.e[r][k], bb[k], acc);
        d.e[r] = __builtin_convertvector(acc, typename simdgroup_matrix<D, 8, 8>::row);
    }
}
#endif
template <typename D, typename A, typename B> inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)));
}
}  // namespace metal
