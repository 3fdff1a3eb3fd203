// Address spaces, scalar and vector types, constructors, traits.
#pragma once
#if defined(MSL_AS)   // distinct, checked by the compiler; x86 treats 1..255 as the flat address space
#define MSL_DEVICE __attribute__((address_space(1)))
#define MSL_CONSTANT __attribute__((address_space(2))) const
#define MSL_THREADGROUP __attribute__((address_space(3)))
#else
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#endif


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
}  // namespace metal
