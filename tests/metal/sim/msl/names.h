// What comes last: bindings for the generated launch stubs, constants, and the names that are macros here.
#pragma once
namespace metal {
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
