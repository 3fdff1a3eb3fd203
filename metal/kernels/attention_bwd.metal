// The backward of attention. With P = softmax of the scores and delta = rowsum(dO * O):
// dV = P^T dO, dS = P * (dO V^T - delta) * score', dQ = dS K, dK = dS^T Q. One pass has tiles of queries and adds dq, one
// has tiles of keys and adds dk and dv over the query heads of its kv head: each result has one writer, in a fixed order.

// delta[h,n] = sum over d of d_out * out: the diagonal of a product of tiles, so that it is summed in the order of
// dO V^T and cancels exactly where a query sees one key only.
template <typename T, uint D>
kernel void attention_delta(device const T* out [[buffer(0)]], device const T* d_out [[buffer(1)]],
                            device float* delta [[buffer(2)]], constant AttnArgs& g [[buffer(3)]],
                            uint2 group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                            uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint BQ = ATTN_ROWS(D * sizeof(T)), LD = D + 16 / sizeof(T);
    threadgroup float4 room[2 * BQ * LD * sizeof(T) / 16];
    threadgroup float products[BQ][8];
    threadgroup T *os = (threadgroup T*)room, *ds = os + BQ * LD;
    const uint first = group.x * BQ, h = group.y, n = first + sg * 8 + lane;
    load_rows<T, BQ, D>(os, out, first, g.N, g.H, h, g.d, tid, BQ * 4);
    load_rows<T, BQ, D>(ds, d_out, first, g.N, g.H, h, g.d, tid, BQ * 4);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    rows_by_rows<T, 8, D>(products[sg * 8], ds + sg * 8 * LD, os + sg * 8 * LD);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (lane < 8 && n < g.N) delta[ulong(h) * g.N + n] = products[sg * 8 + lane][lane];
}
ATTENTION(attention_delta, 32)
ATTENTION(attention_delta, 64)
ATTENTION(attention_delta, 128)
ATTENTION(attention_delta, 256)

// Writes the eight rows of a simdgroup's accumulator, by way of threadgroup memory, to p [N,heads,d].
template <typename T, uint D>
inline void write_rows(thread simdgroup_matrix<float, 8, 8>* acc, threadgroup float* room, device T* p, uint first,
                       uint N, uint heads, uint head, uint d, uint lane) {
    for (uint j = 0; j < D / 8; ++j) simdgroup_store(acc[j], room + 8 * j, D);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const uint n = first + lane / 4;
    if (n < N) {
        for (uint c = lane % 4; c < d; c += 4) p[(ulong(n) * heads + head) * d + c] = T(room[lane / 4 * D + c]);
    }
}

// In both passes `own` rows stay and tiles of others pass through. Where two tiles of others do not fit beside two of own
// (rows of 1 KiB), one room is filled in turn.
template <typename T, uint D>
kernel void attention_dq(device const T* q [[buffer(0)]], device const T* k [[buffer(1)]], device const T* v [[buffer(2)]],
                         device const T* d_out [[buffer(3)]], device const float* lse [[buffer(4)]],
                         device const float* delta [[buffer(5)]], device const int* cu [[buffer(6)]],
                         device T* dq [[buffer(7)]], constant AttnArgs& g [[buffer(8)]],
                         uint2 group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                         uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint BQ = ATTN_ROWS(D * sizeof(T)), KEYS = ATTN_BWD_KEYS(D * sizeof(T)), LD = D + 16 / sizeof(T);
    constexpr bool BOTH = D * sizeof(T) < 1024;
    threadgroup float4 room[(2 * BQ + (BOTH ? 2 : 1) * KEYS) * LD * sizeof(T) / 16];
    threadgroup float scores[BQ][KEYS];
    threadgroup float slopes[BQ][KEYS];
    threadgroup T weights[BQ][KEYS];
    threadgroup T *qs = (threadgroup T*)room, *os = qs + BQ * LD, *ks = os + BQ * LD, *vs = BOTH ? ks + KEYS * LD : ks;
    const uint first = group.x * BQ, h = group.y, kh = h / (g.H / g.K), threads = BQ * 4;
    const uint r = sg * 8 + lane / 4, part = lane % 4, n = first + r, at = min(n, g.N - 1);
    const int start = sequence_start(cu, int(g.S), int(at)), last = int(min(first + BQ, g.N)) - 1;
    const float row_lse = lse[ulong(h) * g.N + at], row_delta = delta[ulong(h) * g.N + at];
    load_rows<T, BQ, D>(qs, q, first, g.N, g.H, h, g.d, tid, threads);
    load_rows<T, BQ, D>(os, d_out, first, g.N, g.H, h, g.d, tid, threads);
    simdgroup_matrix<float, 8, 8> acc[D / 8];
    for (uint j = 0; j < D / 8; ++j) acc[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (int k0 = first_key(cu, int(g.S), int(first), g.window); k0 <= last; k0 += KEYS) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        load_rows<T, KEYS, D>(vs, v, uint(k0), g.N, g.K, kh, g.d, tid, threads);
        if (BOTH) load_rows<T, KEYS, D>(ks, k, uint(k0), g.N, g.K, kh, g.d, tid, threads);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        rows_by_rows<T, KEYS, D>(slopes[sg * 8], os + sg * 8 * LD, vs);
        if (!BOTH) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
            load_rows<T, KEYS, D>(ks, k, uint(k0), g.N, g.K, kh, g.d, tid, threads);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        rows_by_rows<T, KEYS, D>(scores[sg * 8], qs + sg * 8 * LD, ks);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint c = part; c < KEYS; c += 4) {
            float ds = 0.0f;
            if (sees(int(n), k0 + int(c), start, g.window)) {
                const float2 s = score(scores[r][c], g.scale, g.softcap);
                ds = exp(s.x - row_lse) * (slopes[r][c] - row_delta) * s.y;
            }
            weights[r][c] = T(ds);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        add_weighted<T, KEYS, D>(acc, weights[sg * 8], ks);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    write_rows<T, D>(acc, (threadgroup float*)room + sg * 8 * D, dq, first + sg * 8, g.N, g.H, h, g.d, lane);
}
ATTENTION(attention_dq, 32)
ATTENTION(attention_dq, 64)
ATTENTION(attention_dq, 128)
ATTENTION(attention_dq, 256)

template <typename T, uint D>
kernel void attention_dkv(device const T* q [[buffer(0)]], device const T* k [[buffer(1)]], device const T* v [[buffer(2)]],
                          device const T* d_out [[buffer(3)]], device const float* lse [[buffer(4)]],
                          device const float* delta [[buffer(5)]], device const int* cu [[buffer(6)]],
                          device T* dk [[buffer(7)]], device T* dv [[buffer(8)]], constant AttnArgs& g [[buffer(9)]],
                          uint2 group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                          uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint BR = ATTN_ROWS(D * sizeof(T)), QS = ATTN_BWD_KEYS(D * sizeof(T)), LD = D + 16 / sizeof(T);
    constexpr bool BOTH = D * sizeof(T) < 1024;
    static_assert(BOTH || BR == 8, "one room is for one simdgroup");
    threadgroup float4 room[(2 * BR + (BOTH ? 2 : 1) * QS) * LD * sizeof(T) / 16];
    threadgroup float scores[BR][QS];
    threadgroup float slopes[BR][QS];
    threadgroup T weights[BR][QS];
    threadgroup T *ks = (threadgroup T*)room, *vs = ks + BR * LD, *qs = vs + BR * LD, *os = BOTH ? qs + QS * LD : qs;
    const uint first = group.x * BR, kh = group.y, G = g.H / g.K, threads = BR * 4;
    const uint r = sg * 8 + lane / 4, part = lane % 4, key = first + r;
    // queries that see these keys end with the last key's sequence; padding, where there is any, comes last
    const int last = min(int(min(first + BR, g.N)) - 1, cu[g.S] - 1), s_last = sequence_of(cu, int(g.S), last);
    int end = s_last < 0 || s_last >= int(g.S) ? last : cu[s_last + 1];
    if (g.window > 0) end = min(end, last + int(g.window));
    load_rows<T, BR, D>(ks, k, first, g.N, g.K, kh, g.d, tid, threads);
    load_rows<T, BR, D>(vs, v, first, g.N, g.K, kh, g.d, tid, threads);
    simdgroup_matrix<float, 8, 8> acc_k[D / 8], acc_v[D / 8];
    for (uint j = 0; j < D / 8; ++j) {
        acc_k[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        acc_v[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    for (uint h = kh * G; h < kh * G + G; ++h) {
        for (int q0 = int(first); q0 < end; q0 += QS) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
            load_rows<T, QS, D>(qs, q, uint(q0), g.N, g.H, h, g.d, tid, threads);
            if (BOTH) load_rows<T, QS, D>(os, d_out, uint(q0), g.N, g.H, h, g.d, tid, threads);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            rows_by_rows<T, QS, D>(scores[sg * 8], ks + sg * 8 * LD, qs);
            if (!BOTH) {
                threadgroup_barrier(mem_flags::mem_threadgroup);
                load_rows<T, QS, D>(os, d_out, uint(q0), g.N, g.H, h, g.d, tid, threads);
                threadgroup_barrier(mem_flags::mem_threadgroup);
            }
            rows_by_rows<T, QS, D>(slopes[sg * 8], vs + sg * 8 * LD, os);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint c = part; c < QS; c += 4) {
                const uint n = uint(q0) + c;
                float p = 0.0f, ds = 0.0f;
                if (n < g.N && sees(int(n), int(key), sequence_start(cu, int(g.S), int(n)), g.window)) {
                    const ulong row = ulong(h) * g.N + n;
                    const float2 s = score(scores[r][c], g.scale, g.softcap);
                    p = exp(s.x - lse[row]);
                    ds = p * (slopes[r][c] - delta[row]) * s.y;
                }
                weights[r][c] = T(p), slopes[r][c] = ds;
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            add_weighted<T, QS, D>(acc_v, weights[sg * 8], os);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint c = part; c < QS; c += 4) weights[r][c] = T(slopes[r][c]);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            if (!BOTH) {   // one simdgroup: the barriers above say that os is done with
                load_rows<T, QS, D>(qs, q, uint(q0), g.N, g.H, h, g.d, tid, threads);
                threadgroup_barrier(mem_flags::mem_threadgroup);
            }
            add_weighted<T, QS, D>(acc_k, weights[sg * 8], qs);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float* to = (threadgroup float*)room + sg * 8 * D;
    write_rows<T, D>(acc_k, to, dk, first + sg * 8, g.N, g.K, kh, g.d, lane);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    write_rows<T, D>(acc_v, to, dv, first + sg * 8, g.N, g.K, kh, g.d, lane);
}
ATTENTION(attention_dkv, 32)
ATTENTION(attention_dkv, 64)
ATTENTION(attention_dkv, 128)
ATTENTION(attention_dkv, 256)
