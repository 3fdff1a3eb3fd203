// Atomics, relaxed only, as in MSL.
#pragma once
namespace metal {
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
}  // namespace metal
