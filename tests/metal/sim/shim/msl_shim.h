// The Metal Shading Language's standard library, as much of it as our kernels use, for clang++ on a CPU.
// Included by the translation unit that tools/msl2cpu.mjs writes; the .metal sources are not edited.
#pragma once
#pragma clang diagnostic ignored "-Wunknown-attributes"
#pragma clang diagnostic ignored "-Wignored-attributes"
#pragma clang diagnostic ignored "-Wduplicate-decl-specifier"
#include "msl_rt.h"

// ---- address spaces ------------------------------------------------------------------------------------------------
#if defined(MSL_AS)   // distinct, checked by the compiler; x86 treats 1..255 as the flat address space
#define MSL_DEVICE __attribute__((address_space(1)))
#define MSL_CONSTANT __attribute__((address_space(2))) const
#define MSL_THREADGROUP __attribute__((address_space(3)))
#else
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#endif

// ---- types ---------------------------------------------------------------------------------------------------------
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef signed char int8_t; typedef uchar uint8_t; typedef short int16_t; typedef ushort uint16_t;
typedef int int32_t; typedef uint uint32_t; typedef long int64_t; typedef ulong uint64_t;
typedef _Float16 half;
typedef __bf16 bfloat;
#define MSL_VEC(T)                                                                                                     \
    typedef T T##2 __attribute__((ext_vector_type(2)));                                                                \
    typedef T T##3 __attribute__((ext_vector_type(3)));                                                                \
    typedef T T##4 __attribute__((ext_vector_type(4)));
MSL_VEC(bool) MSL_VEC(char) MSL_VEC(uchar) MSL_VEC(short) MSL_VEC(ushort) MSL_VEC(int) MSL_VEC(uint) MSL_VEC(long) MSL_VEC(ulong)
MSL_VEC(half) MSL_VEC(float) MSL_VEC(bfloat)
#undef MSL_VEC

namespace metal {
template <typename T, T v> struct integral_constant { static constexpr T value = v; };
template <bool v> using bool_constant = integral_constant<bool, v>;
template <typename A, typename B> struct is_same : bool_constant<false> {};
template <typename A> struct is_same<A, A> : bool_constant<true> {};
template <typename A, typename B> constexpr bool is_same_v = is_same<A, B>::value;
template <bool, typename T = void> struct enable_if {};
template <typename T> struct enable_if<true, T> { typedef T type; };
template <bool B, typename T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool c, typename A, typename B> struct conditional { typedef A type; };
template <typename A, typename B> struct conditional<false, A, B> { typedef B type; };
template <typename A> struct remove_cv { typedef A type; }; template <typename A> struct remove_cv<const A> { typedef A type; }; template <typename A> struct remove_cv<volatile A> { typedef A type; };
template <typename A> using remove_cv_t = typename remove_cv<A>::type;
template <typename A> struct remove_reference { typedef A type; }; template <typename A> struct remove_reference<A &> { typedef A type; };
template <typename A> using remove_reference_t = typename remove_reference<A>::type;
template <typename A> struct remove_addrspace { typedef A type; };
#ifdef MSL_AS
template <typename A> struct remove_addrspace<MSL_DEVICE A> { typedef A type; };
template <typename A> struct remove_addrspace<__attribute__((address_space(2))) A> { typedef A type; };
template <typename A> struct remove_addrspace<MSL_THREADGROUP A> { typedef A type; };
#endif
template <typename A> using remove_addrspace_t = typename remove_addrspace<A>::type;
template <typename A> struct is_pointer : bool_constant<false> {}; template <typename A> struct is_pointer<A *> : bool_constant<true> {};
template <typename A> struct remove_const { typedef A type; }; template <typename A> struct remove_const<const A> { typedef A type; };
template <bool c, typename A, typename B> using conditional_t = typename conditional<c, A, B>::type;
template <typename T, int N> using vec = T __attribute__((ext_vector_type(N)));
template <typename V> struct __vt { typedef V elem; static constexpr int n = 1; };
template <typename T, int N> struct __vt<vec<T, N>> { typedef T elem; static constexpr int n = N; };
template <typename T> struct __packed3 { T x, y, z; operator vec<T, 3>() const { return vec<T, 3>{x, y, z}; } };

// float4(a, b.xy, ...): the constructors of MSL's vectors
template <typename V, typename A> inline V __splat_or_convert(A a) {
    if constexpr (__vt<A>::n == 1) return (V)(typename __vt<V>::elem)a;
    else { static_assert(__vt<A>::n == __vt<V>::n, "vector of another length"); return __builtin_convertvector(a, V); }
}
template <typename V> inline void __put(V &, int &) {}
template <typename V, typename A, typename... R> inline void __put(V &v, int &i, A a, R... r) {
    if constexpr (__vt<A>::n == 1) v[i++] = (typename __vt<V>::elem)a;
    else for (int k = 0; k < __vt<A>::n; ++k) v[i++] = (typename __vt<V>::elem)a[k];
    __put(v, i, r...);
}
template <typename V> inline V __mk() { return (V)(0); }
template <typename V, typename A> inline V __mk(A a) { return __splat_or_convert<V>(a); }
template <typename V, typename A, typename B, typename... R> inline V __mk(A a, B b, R... r) {
    static_assert(__vt<A>::n + __vt<B>::n + (0 + ... + __vt<R>::n) == __vt<V>::n, "wrong number of components");
    V v; int i = 0; __put(v, i, a, b, r...); return v;
}

// ---- math ----------------------------------------------------------------------------------------------------------
// Never include <math.h>: its ::exp(double) would join overload resolution and hide a missing MSL overload.
#define MSL_UNARY(name, builtin)                                                                                       \
    inline float name(float x) { return builtin(x); }                                                                  \
    inline half name(half x) { return (half)builtin((float)x); }                                                       \
    template <typename T, int N> inline vec<T, N> name(vec<T, N> x) {                      \
        vec<T, N> r; for (int i = 0; i < N; ++i) r[i] = name((T)x[i]); return r; }
inline float __rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float __fractf(float x) { return x - __builtin_floorf(x); }
inline float __signf(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }
inline float __satf(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }
#define MSL_MATH                                                                                                       \
    MSL_UNARY(exp, __builtin_expf) MSL_UNARY(exp2, __builtin_exp2f) MSL_UNARY(exp10, __builtin_exp10f)                 \
    MSL_UNARY(log, __builtin_logf) MSL_UNARY(log2, __builtin_log2f) MSL_UNARY(log10, __builtin_log10f)                 \
    MSL_UNARY(sqrt, __builtin_sqrtf) MSL_UNARY(rsqrt, __rsqrtf) MSL_UNARY(sin, __builtin_sinf)                         \
    MSL_UNARY(cos, __builtin_cosf) MSL_UNARY(tan, __builtin_tanf) MSL_UNARY(tanh, __builtin_tanhf)                     \
    MSL_UNARY(sinh, __builtin_sinhf) MSL_UNARY(cosh, __builtin_coshf) MSL_UNARY(asin, __builtin_asinf)                 \
    MSL_UNARY(acos, __builtin_acosf) MSL_UNARY(atan, __builtin_atanf)
MSL_MATH
MSL_UNARY(floor, __builtin_floorf) MSL_UNARY(ceil, __builtin_ceilf) MSL_UNARY(trunc, __builtin_truncf)
MSL_UNARY(round, __builtin_roundf) MSL_UNARY(rint, __builtin_rintf) MSL_UNARY(fabs, __builtin_fabsf)
MSL_UNARY(fract, __fractf) MSL_UNARY(sign, __signf) MSL_UNARY(saturate, __satf)
namespace precise { MSL_MATH }
namespace fast { MSL_MATH }
#undef MSL_UNARY
#undef MSL_MATH
inline float abs(float x) { return __builtin_fabsf(x); }
inline half abs(half x) { return (half)__builtin_fabsf((float)x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline float pow(float a, float b) { return __builtin_powf(a, b); }
inline float powr(float a, float b) { return __builtin_powf(a, b); }
inline float fmod(float a, float b) { return __builtin_fmodf(a, b); }
inline float atan2(float a, float b) { return __builtin_atan2f(a, b); }
inline float copysign(float a, float b) { return __builtin_copysignf(a, b); }
inline float ldexp(float a, int b) { return __builtin_ldexpf(a, b); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline half fma(half a, half b, half c) { return (half)__builtin_fmaf((float)a, (float)b, (float)c); }
template <int N> inline vec<float, N> fma(vec<float, N> a, vec<float, N> b, vec<float, N> c) { return __builtin_elementwise_fma(a, b, c); }
inline float fmax(float a, float b) { return __builtin_fmaxf(a, b); }
inline float fmin(float a, float b) { return __builtin_fminf(a, b); }
#define MSL_MM(T)                                                                                                      \
    inline T max(T a, T b) { return a < b ? b : a; }                                                                   \
    inline T min(T a, T b) { return b < a ? b : a; }                                                                   \
    inline T clamp(T x, T lo, T hi) { return x < lo ? lo : hi < x ? hi : x; }                                          \
    inline T select(T a, T b, bool c) { return c ? b : a; }
MSL_MM(char) MSL_MM(uchar) MSL_MM(short) MSL_MM(ushort) MSL_MM(int) MSL_MM(uint) MSL_MM(long) MSL_MM(ulong) MSL_MM(half)
#undef MSL_MM
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float clamp(float x, float lo, float hi) { return min(max(x, lo), hi); }
inline float select(float a, float b, bool c) { return c ? b : a; }
template <typename T, int N> inline vec<T, N> max(vec<T, N> a, vec<T, N> b) { return __builtin_elementwise_max(a, b); }
template <typename T, int N> inline vec<T, N> min(vec<T, N> a, vec<T, N> b) { return __builtin_elementwise_min(a, b); }
template <typename T> inline T mix(T a, T b, T t) { return a + (b - a) * t; }
template <typename T, int N> inline T dot(vec<T, N> a, vec<T, N> b) {
    T s = 0; for (int i = 0; i < N; ++i) s += a[i] * b[i]; return s; }
template <typename T, int N> inline T length(vec<T, N> a) { return sqrt(dot(a, a)); }
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline uint popcount(uint x) { return __builtin_popcount(x); }
inline uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
inline uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
inline uint mulhi(uint a, uint b) { return (uint)(((ulong)a * b) >> 32); }
inline uint rotate(uint v, uint n) { n &= 31; return n ? v << n | v >> (32 - n) : v; }
template <typename V> inline bool any(V v) { bool r = false; for (int i = 0; i < __vt<V>::n; ++i) r |= !!v[i]; return r; }
template <typename V> inline bool all(V v) { bool r = true; for (int i = 0; i < __vt<V>::n; ++i) r &= !!v[i]; return r; }

template <typename T> struct numeric_limits {   // integers; floating types below
    static constexpr bool is_signed = T(-1) < T(0);
    static constexpr T max() { return is_signed ? T(~((unsigned long)1 << (sizeof(T) * 8 - 1)) & (~0ul >> (64 - sizeof(T) * 8))) : T(~T(0)); }
    static constexpr T min() { return is_signed ? T(-max() - 1) : T(0); }
    static constexpr T lowest() { return min(); }
};
template <> struct numeric_limits<bool> { static constexpr bool max() { return true; } static constexpr bool min() { return false; } static constexpr bool lowest() { return false; } };
#define MSL_LIMITS(T, MAX, MIN, EPS)                                                                                   \
    template <> struct numeric_limits<T> {                                                                             \
        static constexpr T max() { return (T)MAX; } static constexpr T min() { return (T)MIN; }                        \
        static constexpr T lowest() { return (T)-MAX; } static constexpr T infinity() { return (T)__builtin_inff(); }   \
        static constexpr T quiet_NaN() { return (T)__builtin_nanf(""); } static constexpr T epsilon() { return (T)EPS; } };
MSL_LIMITS(float, 3.402823466e+38f, 1.175494351e-38f, 1.1920929e-7f)
MSL_LIMITS(half, 65504.0f, 6.103515625e-5f, 9.765625e-4f)
MSL_LIMITS(bfloat, 3.38953139e+38f, 1.175494351e-38f, 7.8125e-3f)
#undef MSL_LIMITS
template <typename T> struct is_integral : bool_constant<false> {};
#define MSL_INT(T) template <> struct is_integral<T> : bool_constant<true> {};
MSL_INT(bool) MSL_INT(char) MSL_INT(int8_t) MSL_INT(uchar) MSL_INT(short) MSL_INT(ushort) MSL_INT(int) MSL_INT(uint) MSL_INT(long) MSL_INT(ulong)
#undef MSL_INT
template <typename T> struct is_floating_point : bool_constant<is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>> {};
template <typename T> constexpr bool is_integral_v = is_integral<T>::value;
template <typename T> constexpr bool is_floating_point_v = is_floating_point<T>::value;
template <typename T> constexpr bool is_signed_v = T(-1) < T(0);
template <typename T> constexpr bool is_unsigned_v = !is_signed_v<T>;

// ---- barriers ------------------------------------------------------------------------------------------------------
enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
inline void threadgroup_barrier(mem_flags) { __atomic_signal_fence(__ATOMIC_SEQ_CST); msl_barrier(); __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void simdgroup_barrier(mem_flags) { __atomic_signal_fence(__ATOMIC_SEQ_CST); msl_simd_end("simdgroup_barrier", nullptr, nullptr); __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ---- simdgroup functions -------------------------------------------------------------------------------------------
#pragma clang attribute push(__attribute__((no_sanitize("thread"))), apply_to = function)   // the exchange itself is no race
template <typename T> inline T &__slot(void *s, unsigned lane) { return *(T *)((char *)s + lane * MSL_SLOT); }
template <typename T> inline void *__simd(const char *op, T x, void (*combine)(void *, unsigned), unsigned *mask) {
    static_assert(sizeof(T) <= MSL_SLOT, "value too large for a simdgroup operation");
    *(T *)msl_simd_begin() = x;
    return msl_simd_end(op, combine, mask);
}
// Reduction: a butterfly over the lanes (inactive lanes contribute the identity), the result put in every slot's place 0.
template <typename T, typename Op> void __reduce(void *s, unsigned mask) {
    T v[32];
    for (int i = 0; i < 32; ++i) v[i] = mask >> i & 1 ? __slot<T>(s, i) : Op::identity(T());
    for (int w = 16; w; w >>= 1) for (int i = 0; i < w; ++i) v[i] = Op::f(v[i], v[i + w]);
    __slot<T>(s, 0) = v[0];
}
struct __add { template <typename T> static T f(T a, T b) { return a + b; } template <typename T> static T identity(T) { return T(0); } };
struct __mul { template <typename T> static T f(T a, T b) { return a * b; } template <typename T> static T identity(T) { return T(1); } };
struct __max { template <typename T> static T f(T a, T b) { return max(a, b); } template <typename T> static T identity(T) { return numeric_limits<T>::lowest(); }
    static float identity(float) { return -__builtin_inff(); } static int identity(int) { return -0x7fffffff - 1; } static uint identity(uint) { return 0; } };
struct __min { template <typename T> static T f(T a, T b) { return min(a, b); } template <typename T> static T identity(T) { return numeric_limits<T>::max(); }
    static float identity(float) { return __builtin_inff(); } };
struct __and { template <typename T> static T f(T a, T b) { return a & b; } template <typename T> static T identity(T) { return T(~T(0)); } };
struct __or { template <typename T> static T f(T a, T b) { return a | b; } template <typename T> static T identity(T) { return T(0); } };
struct __xor { template <typename T> static T f(T a, T b) { return a ^ b; } template <typename T> static T identity(T) { return T(0); } };
#define MSL_RED(name, op) template <typename T> inline T name(T x) { return __slot<T>(__simd(#name, x, __reduce<T, op>, nullptr), 0); }
MSL_RED(simd_sum, __add) MSL_RED(simd_product, __mul) MSL_RED(simd_max, __max) MSL_RED(simd_min, __min)
MSL_RED(simd_and, __and) MSL_RED(simd_or, __or) MSL_RED(simd_xor, __xor)
#undef MSL_RED
template <typename T> inline T __lane_of(const char *op, T x, unsigned from) {
    unsigned mask; void *s = __simd(op, x, nullptr, &mask);
    return from < 32 && (mask >> from & 1) ? __slot<T>(s, from) : x;   // an inactive source lane is undefined on the GPU
}
template <typename T> inline T simd_shuffle(T x, ushort lane) { return __lane_of("simd_shuffle", x, lane); }
template <typename T> inline T simd_shuffle_xor(T x, ushort m) { return __lane_of("simd_shuffle_xor", x, msl_lane() ^ m); }
template <typename T> inline T simd_shuffle_down(T x, ushort d) { return __lane_of("simd_shuffle_down", x, msl_lane() + d); }
template <typename T> inline T simd_shuffle_up(T x, ushort d) { return __lane_of("simd_shuffle_up", x, msl_lane() - d); }
template <typename T> inline T simd_shuffle_and_fill_up(T x, T fill, ushort d) { unsigned l = msl_lane(); T up = __lane_of("simd_shuffle_and_fill_up", x, l - d), f = __lane_of("simd_shuffle_and_fill_up", fill, l + 32 - d); return l >= d ? up : f; }
template <typename T> inline T simd_broadcast(T x, ushort lane) { return __lane_of("simd_broadcast", x, lane); }
template <typename T> inline T simd_broadcast_first(T x) { unsigned m; void *s = __simd("simd_broadcast_first", x, nullptr, &m); return __slot<T>(s, __builtin_ctz(m)); }
inline bool simd_any(bool x) { return simd_or<uint>(x); }
inline bool simd_all(bool x) { return simd_and<uint>(x); }
template <typename T> inline T simd_prefix_exclusive_sum(T x) {
    unsigned m; void *s = __simd("simd_prefix_exclusive_sum", x, nullptr, &m);
    T r = T(0); for (unsigned i = 0; i < msl_lane(); ++i) if (m >> i & 1) r += __slot<T>(s, i); return r;
}
template <typename T> inline T simd_prefix_inclusive_sum(T x) { return simd_prefix_exclusive_sum(x) + x; }
template <typename T> inline T quad_shuffle_xor(T x, ushort m) { return __lane_of("quad_shuffle_xor", x, msl_lane() ^ (m & 3)); }
#pragma clang attribute pop

// ---- simdgroup matrices --------------------------------------------------------------------------------------------
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

// ---- atomics (relaxed only, as in MSL) ------------------------------------------------------------------------------
enum memory_order { memory_order_relaxed };
template <typename T> struct atomic { T __v; };
typedef atomic<int> atomic_int; typedef atomic<uint> atomic_uint; typedef atomic<float> atomic_float;
template <typename P> inline auto __flat(P p) { typedef decltype(p->__v + 0) E; return (E *)&p->__v; }   // out of its address space, for the builtins
template <typename P> inline auto atomic_load_explicit(P p, memory_order) { auto q = __flat(p); __typeof__(*q + 0) r; __atomic_load(q, &r, __ATOMIC_RELAXED); return r; }
template <typename P, typename V> inline void atomic_store_explicit(P p, V v, memory_order) { auto q = __flat(p); __typeof__(*q + 0) x = v; __atomic_store(q, &x, __ATOMIC_RELAXED); }
template <typename P, typename V, typename F> inline auto __rmw(P p, V v, F f) {
    auto q = __flat(p); auto o = atomic_load_explicit(p, memory_order_relaxed); auto n = o;
    do n = f(o, (decltype(o))v); while (!__atomic_compare_exchange(q, &o, &n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return o;
}
template <typename P, typename V> inline auto atomic_fetch_add_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto a, auto b) { return a + b; }); }
template <typename P, typename V> inline auto atomic_fetch_sub_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto a, auto b) { return a - b; }); }
template <typename P, typename V> inline auto atomic_fetch_max_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto a, auto b) { return a < b ? b : a; }); }
template <typename P, typename V> inline auto atomic_fetch_min_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto a, auto b) { return b < a ? b : a; }); }
template <typename P, typename V> inline auto atomic_fetch_or_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto a, auto b) { return a | b; }); }
template <typename P, typename V> inline auto atomic_exchange_explicit(P p, V v, memory_order) { return __rmw(p, v, [](auto, auto b) { return b; }); }

// ---- for the generated launch stubs ---------------------------------------------------------------------------------
template <typename V> inline V __id3(MslU3 u) {
    if constexpr (__vt<V>::n == 1) return (V)u.x;
    else if constexpr (__vt<V>::n == 2) return V{(typename __vt<V>::elem)u.x, (typename __vt<V>::elem)u.y};
    else return V{(typename __vt<V>::elem)u.x, (typename __vt<V>::elem)u.y, (typename __vt<V>::elem)u.z};
}
template <typename R> struct __ref;   // binds buffer n to T* or T&
template <typename T> struct __ref<T *> { static T *get(void *p) { return (T *)p; } static constexpr unsigned size = 0, align = alignof(T); };
template <typename T> struct __ref<T &> { static T &get(void *p) { return *(T *)p; } static constexpr unsigned size = sizeof(T), align = alignof(T); };
}  // namespace metal

template <typename To, typename From> inline To as_type(From f) { return __builtin_bit_cast(To, f); }

#pragma clang diagnostic ignored "-Wuser-defined-literals"
#pragma clang diagnostic ignored "-Wreserved-identifier"
constexpr half operator""h(long double x) { return (half)x; }
constexpr half operator""h(unsigned long long x) { return (half)x; }

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define HALF_MAX ((half)65504.0f)
#define M_PI_F 3.14159265358979f
#define M_LOG2E_F 1.44269504088896f
#define M_LN2_F 0.69314718055995f
#define M_SQRT2_F 1.41421356237310f
#define M_SQRT1_2_F 0.70710678118655f
#define M_2_SQRTPI_F 1.12837916709551f

#define METAL_FUNC inline __attribute__((always_inline))
#define METAL_CONST const
// a function-like macro with the type's own name: `float4(...)` is a construction, `float4 x` stays the type
#define bool2(...) metal::__mk<bool2>(__VA_ARGS__)
#define int2(...) metal::__mk<int2>(__VA_ARGS__)
#define int3(...) metal::__mk<int3>(__VA_ARGS__)
#define int4(...) metal::__mk<int4>(__VA_ARGS__)
#define uint2(...) metal::__mk<uint2>(__VA_ARGS__)
#define uint3(...) metal::__mk<uint3>(__VA_ARGS__)
#define uint4(...) metal::__mk<uint4>(__VA_ARGS__)
#define short2(...) metal::__mk<short2>(__VA_ARGS__)
#define ushort2(...) metal::__mk<ushort2>(__VA_ARGS__)
#define ushort4(...) metal::__mk<ushort4>(__VA_ARGS__)
#define uchar4(...) metal::__mk<uchar4>(__VA_ARGS__)
#define char4(...) metal::__mk<char4>(__VA_ARGS__)
#define ulong2(...) metal::__mk<ulong2>(__VA_ARGS__)
#define half2(...) metal::__mk<half2>(__VA_ARGS__)
#define half3(...) metal::__mk<half3>(__VA_ARGS__)
#define half4(...) metal::__mk<half4>(__VA_ARGS__)
#define long2(...) metal::__mk<long2>(__VA_ARGS__)
#define long3(...) metal::__mk<long3>(__VA_ARGS__)
#define long4(...) metal::__mk<long4>(__VA_ARGS__)
#define ulong3(...) metal::__mk<ulong3>(__VA_ARGS__)
#define ulong4(...) metal::__mk<ulong4>(__VA_ARGS__)
#define short3(...) metal::__mk<short3>(__VA_ARGS__)
#define short4(...) metal::__mk<short4>(__VA_ARGS__)
#define ushort3(...) metal::__mk<ushort3>(__VA_ARGS__)
#define uchar2(...) metal::__mk<uchar2>(__VA_ARGS__)
#define bool3(...) metal::__mk<bool3>(__VA_ARGS__)
#define bool4(...) metal::__mk<bool4>(__VA_ARGS__)
#define bfloat2(...) metal::__mk<bfloat2>(__VA_ARGS__)
#define bfloat4(...) metal::__mk<bfloat4>(__VA_ARGS__)
#define float2(...) metal::__mk<float2>(__VA_ARGS__)
#define float3(...) metal::__mk<float3>(__VA_ARGS__)
#define float4(...) metal::__mk<float4>(__VA_ARGS__)

// last, so that nothing above sees them
#define device MSL_DEVICE
#define constant MSL_CONSTANT
#define threadgroup MSL_THREADGROUP
#define thread
#define kernel
