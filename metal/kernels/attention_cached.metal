// Keys and values in caches [S,L,K,d]: writing them, and the attention of new queries over them. A threadgroup has one query
// of one head; each of its simdgroups takes every nsg-th row of the cache, lanes share a row's features, and the simdgroups'
// online softmaxes are joined at the end. Bound by reading the cache.

// A row outside the caches is not written.
template <typename T>
kernel void cache_write(device const T* k [[buffer(0)]], device const T* v [[buffer(1)]],
                        device const int* seq [[buffer(2)]], device const int* pos [[buffer(3)]],
                        device T* kc [[buffer(4)]], device T* vc [[buffer(5)]], constant CacheArgs& g [[buffer(6)]],
                        uint n [[threadgroup_position_in_grid]], TEAM) {
    const int s = seq[n], p = pos[n];
    if (s < 0 || uint(s) >= g.S || p < 0 || uint(p) >= g.L) return;
    const ulong width = ulong(g.K) * g.d, to = (ulong(s) * g.L + p) * width;
    for (ulong i = tid; i < width; i += nsg * 32) {
        kc[to + i] = k[n * width + i];
        vc[to + i] = v[n * width + i];
    }
}
FOR_FLOATS(cache_write)

constant constexpr uint PER_LANE = 8;   // d is at most 256

// A query whose place is outside the caches gets NaN.
template <typename T>
kernel void attention_cached(device const T* q [[buffer(0)]], device const T* kc [[buffer(1)]],
                             device const T* vc [[buffer(2)]], device const int* seq [[buffer(3)]],
                             device const int* pos [[buffer(4)]], device T* out [[buffer(5)]],
                             constant CacheArgs& g [[buffer(6)]], uint group [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float tops[8];
    threadgroup float sums[8];
    threadgroup float parts[8][256];
    const uint n = group / g.H, h = group % g.H, kh = h / (g.H / g.K);
    const int s = seq[n], p = pos[n];
    const bool known = s >= 0 && uint(s) < g.S && p >= 0 && uint(p) < g.L;
    const int begin = known && g.window > 0 ? max(0, p - int(g.window) + 1) : 0;
    float query[PER_LANE], acc[PER_LANE], top = -INFINITY, sum = 0.0f;
    for (uint j = 0; j < PER_LANE; ++j) {
        const uint c = lane + 32 * j;
        query[j] = c < g.d ? float(q[ulong(group) * g.d + c]) * g.scale : 0.0f;
        acc[j] = 0.0f;
    }
    for (int row = begin + int(sg); known && row <= p; row += int(nsg)) {
        const ulong at = ((ulong(s) * g.L + row) * g.K + kh) * g.d;
        float x = 0.0f;
        for (uint j = 0; j < PER_LANE; ++j) {
            const uint c = lane + 32 * j;
            if (c < g.d) x = fma(query[j], float(kc[at + c]), x);
        }
        x = simd_sum(x);
        if (g.softcap > 0.0f) x = g.softcap * precise::tanh(x / g.softcap);
        const float best = max(top, x), shrink = exp(top - best), w = exp(x - best);
        sum = sum * shrink + w, top = best;
        for (uint j = 0; j < PER_LANE; ++j) {
            const uint c = lane + 32 * j;
            if (c < g.d) acc[j] = fma(w, float(vc[at + c]), acc[j] * shrink);
        }
    }
    if (lane == 0) tops[sg] = top, sums[sg] = sum;
    for (uint j = 0; j < PER_LANE; ++j) parts[sg][lane + 32 * j] = acc[j];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float peak = tops[0];
    for (uint i = 1; i < nsg; ++i) peak = max(peak, tops[i]);
    for (uint c = tid; c < g.d; c += nsg * 32) {
        float x = 0.0f, total = 0.0f;
        for (uint i = 0; i < nsg; ++i) {
            const float w = tops[i] == -INFINITY ? 0.0f : exp(tops[i] - peak);
            x = fma(w, parts[i][c], x), total = fma(w, sums[i], total);
        }
        out[ulong(group) * g.d + c] = T(known ? x / total : NAN);
    }
}
FOR_FLOATS(attention_cached)
