// Barriers, and functions over the lanes of a simdgroup.
#pragma once
namespace metal {
enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
#define MSL_UNLESS(n) if (msl_removed != (n))  // before a barrier: passed over when it is the one to be removed
inline void threadgroup_barrier(mem_flags) { __atomic_signal_fence(__ATOMIC_SEQ_CST); msl_barrier(); __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void simdgroup_barrier(mem_flags) { __atomic_signal_fence(__ATOMIC_SEQ_CST); msl_simd_end("simdgroup_barrier", nullptr, nullptr); __atomic_signal_fence(__ATOMIC_SEQ_CST); }

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
}  // namespace metal
