// Functions on numbers. Never include <math.h>: its ::exp(double) would join overload resolution and hide a missing overload.
#pragma once
namespace metal {
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
}  // namespace metal
