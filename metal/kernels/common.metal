// What every kernel file uses: function constants, loads and stores of four elements, sums over a threadgroup.
// Values are read as f32 whatever they are stored as, computed in f32, and rounded once when stored.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

constant uint TYPE [[function_constant(0)]];      // element type of the operand that may be of any type
constant uint OUT [[function_constant(1)]];       // element type of the result where it is not the kernel's own
constant uint KIND [[function_constant(2)]];      // which activation or norm, how many rows
constant bool TRANS_A [[function_constant(3)]];
constant bool TRANS_B [[function_constant(4)]];
constant bool WIDE [[function_constant(5)]];      // addresses and row lengths allow accesses of four elements
constant bool WIDE_B [[function_constant(6)]];    // the same for matmul's b
constant bool OPTIONAL [[function_constant(7)]];  // the operand that may be absent is there

// Where a thread stands: its place in the threadgroup, its lane, its simdgroup, how many simdgroups there are.
#define TEAM                                                                                                          \
    uint tid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],                                \
    uint sg [[simdgroup_index_in_threadgroup]], uint nsg [[simdgroups_per_threadgroup]]

// name_f32, name_bf16 and name_f16 of a kernel template over its activation type
#define FOR_FLOATS(name)                                                                                              \
    template [[host_name(#name "_f32")]] kernel decltype(name<float>) name<float>;                                    \
    template [[host_name(#name "_bf16")]] kernel decltype(name<bfloat>) name<bfloat>;                                 \
    template [[host_name(#name "_f16")]] kernel decltype(name<half>) name<half>;

template <typename T> inline float4 load4(device const T* p) {
    if (WIDE) return float4(*(device const vec<T, 4>*)p);
    return float4(float(p[0]), float(p[1]), float(p[2]), float(p[3]));
}
template <typename T> inline void store4(device T* p, float4 v) {
    if (WIDE) {
        *(device vec<T, 4>*)p = vec<T, 4>(v);
        return;
    }
    for (uint j = 0; j < 4; ++j) p[j] = T(v[j]);
}

// Elements i..i+3 of n; those past the end are 0, and are not stored.
template <typename T> inline float4 load4(device const T* p, ulong i, ulong n) {
    if (i + 4 <= n) return load4(p + i);
    float4 v = float4(0.0f);
    for (uint j = 0; i + j < n; ++j) v[j] = float(p[i + j]);
    return v;
}
template <typename T> inline void store4(device T* p, ulong i, ulong n, float4 v) {
    if (i + 4 <= n) {
        store4(p + i, v);
        return;
    }
    for (uint j = 0; i + j < n; ++j) p[i + j] = T(v[j]);
}

// Sum, or maximum, over the threadgroup; every thread gets it. `part` holds a float a simdgroup. The order is fixed.
inline float group_sum(float x, threadgroup float* part, uint lane, uint sg, uint nsg) {
    x = simd_sum(x);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0) part[sg] = x;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float s = 0.0f;
    for (uint i = 0; i < nsg; ++i) s += part[i];
    return s;
}
inline float group_max(float x, threadgroup float* part, uint lane, uint sg, uint nsg) {
    x = simd_max(x);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0) part[sg] = x;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float m = part[0];
    for (uint i = 1; i < nsg; ++i) m = max(m, part[i]);
    return m;
}

// A dense element of a type known when the pipeline is made (TYPE) or only now (bias).
inline float dense_at(device const uchar* p, uint type, ulong i) {
    if (type == F32) return ((device const float*)p)[i];
    if (type == BF16) return float(((device const bfloat*)p)[i]);
    return float(((device const half*)p)[i]);
}
