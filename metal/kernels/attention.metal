// Causal attention within packed sequences, forward (Dao et al. 2022; online softmax: Milakov & Gimelshein 2018). A
// threadgroup has a tile of queries of one head, a simdgroup eight of them; tiles of keys and values pass through threadgroup
// memory. Scores go through it too, because how a simdgroup matrix lies over the lanes is not documented: four lanes share
// a row. 4 N^2/2 d FLOP a head, bound by arithmetic. D is d rounded up to 32, 64, 128 or 256; columns past d are zeros.

// The last entry of cu [S+1] that is at most n; -1 when there is none.
inline int sequence_of(device const int* cu, int S, int n) {
    int low = -1, high = S;
    while (low < high) {
        const int mid = (low + high + 1) / 2;
        if (cu[mid] <= n) low = mid;
        else high = mid - 1;
    }
    return low;
}
// First token of the sequence that holds token n. Tokens outside every sequence start past all keys: they see none.
inline int sequence_start(device const int* cu, int S, int n) {
    const int s = sequence_of(cu, S, n);
    return s < 0 || s >= S ? 0x7fffffff : cu[s];
}
// Causal, within the sequence, within the window.
inline bool sees(int query, int key, int start, uint window) {
    return key <= query && key >= start && (window == 0 || uint(query - key) < window);
}
// First key that any row of a tile of queries from `first` sees.
inline int first_key(device const int* cu, int S, int first, uint window) {
    const int s = sequence_of(cu, S, first), start = s < 0 ? cu[0] : s >= S ? 0x7fffffff : cu[s];
    return window > 0 ? max(start, first - int(window) + 1) : start;
}
// The score after scale and soft cap, and its derivative with respect to q . k.
inline float2 score(float qk, float scale, float softcap) {
    const float s = qk * scale;
    if (softcap <= 0.0f) return float2(s, scale);
    const float t = precise::tanh(s / softcap);
    return float2(softcap * t, scale * (1.0f - t * t));
}

// Rows from..from+ROWS-1 of one head of p [N,heads,d] into rows of D + 16 bytes; zeros past N and past d.
template <typename T, uint ROWS, uint D>
inline void load_rows(threadgroup T* to, device const T* p, uint from, uint N, uint heads, uint head, uint d, uint tid,
                      uint threads) {
    constexpr uint LD = D + 16 / sizeof(T);
    for (uint e = tid * 4; e < ROWS * D; e += threads * 4) {
        const uint r = e / D, c = e % D;
        float4 v = float4(0.0f);
        if (from + r < N && c < d) v = load4(p + (ulong(from + r) * heads + head) * d, c, d);
        *(threadgroup vec<T, 4>*)(to + r * LD + c) = vec<T, 4>(v);
    }
}

// out(8 x COLS) = rows(8 x D) * others(COLS x D)^T, stored at `to` with row stride COLS
template <typename T, uint COLS, uint D>
inline void rows_by_rows(threadgroup float* to, threadgroup const T* rows, threadgroup const T* others) {
    constexpr uint LD = D + 16 / sizeof(T);
    simdgroup_matrix<float, 8, 8> acc[COLS / 8];
    for (uint j = 0; j < COLS / 8; ++j) acc[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (uint k = 0; k < D; k += 8) {
        simdgroup_matrix<T, 8, 8> a, b;
        simdgroup_load(a, rows + k, LD);
        for (uint j = 0; j < COLS / 8; ++j) {
            simdgroup_load(b, others + j * 8 * LD + k, LD, ulong2(0), true);
            simdgroup_multiply_accumulate(acc[j], a, b, acc[j]);
        }
    }
    for (uint j = 0; j < COLS / 8; ++j) simdgroup_store(acc[j], to + 8 * j, COLS);
}

// acc(8 x D) += weights(8 x COLS) * others(COLS x D)
template <typename T, uint COLS, uint D>
inline void add_weighted(thread simdgroup_matrix<float, 8, 8>* acc, threadgroup const T* weights,
                         threadgroup const T* others) {
    constexpr uint LD = D + 16 / sizeof(T);
    for (uint k = 0; k < COLS; k += 8) {
        simdgroup_matrix<T, 8, 8> a, b;
        simdgroup_load(a, weights + k, COLS);
        for (uint j = 0; j < D / 8; ++j) {
            simdgroup_load(b, others + k * LD + 8 * j, LD);
            simdgroup_multiply_accumulate(acc[j], a, b, acc[j]);
        }
    }
}

template <typename T, uint D>
kernel void attention(device const T* q [[buffer(0)]], device const T* k [[buffer(1)]], device const T* v [[buffer(2)]],
                      device const int* cu [[buffer(3)]], device T* out [[buffer(4)]], device float* lse [[buffer(5)]],
                      constant AttnArgs& g [[buffer(6)]], uint2 group [[threadgroup_position_in_grid]],
                      uint tid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
                      uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint BQ = ATTN_ROWS(D * sizeof(T)), KEYS = ATTN_KEYS(D * sizeof(T)), LD = D + 16 / sizeof(T);
    threadgroup float4 room[(BQ + 2 * KEYS) * LD * sizeof(T) / 16];
    threadgroup float scores[BQ][KEYS];
    threadgroup T weights[BQ][KEYS];
    threadgroup float diagonals[BQ / 8][64];
    threadgroup T *qs = (threadgroup T*)room, *ks = qs + BQ * LD, *vs = ks + KEYS * LD;
    const uint first = group.x * BQ, h = group.y, kh = h / (g.H / g.K), threads = BQ * 4;
    // this lane's row, and its share of the row's columns: part, part + 4, ...
    const uint r = sg * 8 + lane / 4, part = lane % 4, n = first + r;
    const int start = sequence_start(cu, int(g.S), int(min(n, g.N - 1)));
    const int last = int(min(first + BQ, g.N)) - 1;
    load_rows<T, BQ, D>(qs, q, first, g.N, g.H, h, g.d, tid, threads);
    simdgroup_matrix<float, 8, 8> acc[D / 8];
    for (uint j = 0; j < D / 8; ++j) acc[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    threadgroup float* diagonal = diagonals[sg];
    diagonal[lane] = 0.0f, diagonal[lane + 32] = 0.0f;
    float top = -INFINITY, sum = 0.0f;
    for (int k0 = first_key(cu, int(g.S), int(first), g.window); k0 <= last; k0 += KEYS) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        load_rows<T, KEYS, D>(ks, k, uint(k0), g.N, g.K, kh, g.d, tid, threads);
        load_rows<T, KEYS, D>(vs, v, uint(k0), g.N, g.K, kh, g.d, tid, threads);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        rows_by_rows<T, KEYS, D>(scores[sg * 8], qs + sg * 8 * LD, ks);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        float s[KEYS / 4], best = top;
        for (uint j = 0; j < KEYS / 4; ++j) {
            const uint c = part + 4 * j;
            s[j] = sees(int(n), k0 + int(c), start, g.window) ? score(scores[r][c], g.scale, g.softcap).x : -INFINITY;
            best = max(best, s[j]);
        }
        best = max(best, simd_shuffle_xor(best, ushort(1)));
        best = max(best, simd_shuffle_xor(best, ushort(2)));
        const float base = best == -INFINITY ? 0.0f : best;   // no key seen so far: all weights below are exp(-inf) = 0
        const float shrink = exp(top - base);
        float added = 0.0f;
        for (uint j = 0; j < KEYS / 4; ++j) {
            const float p = exp(s[j] - base);
            weights[r][part + 4 * j] = T(p), added += p;
        }
        added += simd_shuffle_xor(added, ushort(1));
        added += simd_shuffle_xor(added, ushort(2));
        sum = sum * shrink + added, top = best;
        if (part == 0) diagonal[lane / 4 * 9] = shrink;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_matrix<float, 8, 8> shrinks;
        simdgroup_load(shrinks, diagonal, 8);
        for (uint j = 0; j < D / 8; ++j) simdgroup_multiply(acc[j], shrinks, acc[j]);
        add_weighted<T, KEYS, D>(acc, weights[sg * 8], vs);
    }
    // through threadgroup memory to the rows' lanes
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float* os = (threadgroup float*)room + sg * 8 * D;
    for (uint j = 0; j < D / 8; ++j) simdgroup_store(acc[j], os + 8 * j, D);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (n >= g.N) return;
    const float weight = sum > 0.0f ? 1.0f / sum : 0.0f;
    device T* to = out + (ulong(n) * g.H + h) * g.d;
    for (uint c = part; c < g.d; c += 4) to[c] = T(os[lane / 4 * D + c] * weight);
    if (part == 0) lse[ulong(h) * g.N + n] = sum > 0.0f ? top + log(sum) : 0.0f;
}

#define ATTENTION(name, D)                                                                                            \
    template [[host_name(#name "_" #D "_f32")]] kernel decltype(name<float, D>) name<float, D>;                       \
    template [[host_name(#name "_" #D "_bf16")]] kernel decltype(name<bfloat, D>) name<bfloat, D>;                    \
    template [[host_name(#name "_" #D "_f16")]] kernel decltype(name<half, D>) name<half, D>;
ATTENTION(attention, 32)
ATTENTION(attention, 64)
ATTENTION(attention, 128)
ATTENTION(attention, 256)
