// c[M,N] = alpha op(a) op(b) + beta c (+ bias): a BM x BN tile of c a threadgroup of four simdgroups, each a quadrant of
// 8x8 simdgroup matrices with f32 accumulators. Tiles of 32 along K pass through threadgroup memory in a's type, stored as
// they lie in memory (simdgroup_load transposes); b is decoded from its TYPE on the way. 2 M N K FLOP, bound by arithmetic
// above about 30 rows. The 32 x 32 tile serves thin products (adapters) and small ones.

constant constexpr uint BK = 32;

// Eight consecutive elements of row r, from column c, of a row-major [R,C] matrix; zero outside.
template <typename T> inline void load_a8(device const T* p, ulong r, ulong c, ulong R, ulong C, thread float* o) {
    if (r < R && c + 8 <= C) {
        read8(p + r * C + c, WIDE, o);
        return;
    }
    for (uint j = 0; j < 8; ++j) o[j] = r < R && c + j < C ? float(p[r * C + c + j]) : 0.0f;
}
inline void load_b8(device const uchar* p, ulong r, ulong c, ulong R, ulong C, thread float* o) {
    decode_upto8(p, r * C + c, r < R && c < C ? uint(min(C - c, ulong(8))) : 0u, o);
}
template <typename T> inline void put8(threadgroup T* p, thread const float* o) {
    *(threadgroup vec<T, 4>*)p = vec<T, 4>(float4(o[0], o[1], o[2], o[3]));
    *(threadgroup vec<T, 4>*)(p + 4) = vec<T, 4>(float4(o[4], o[5], o[6], o[7]));
}

template <typename T, uint BM, uint BN>
kernel void gemm(device const T* a [[buffer(0)]], device const uchar* b [[buffer(1)]], device T* c [[buffer(2)]],
                 device const uchar* bias [[buffer(3)]], constant GemmArgs& g [[buffer(4)]],
                 uint2 tile [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                 uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint PAD = 16 / sizeof(T), FM = BM / 16, FN = BN / 16;
    constexpr uint A_SIZE = BM * (BK + PAD) > BK * (BM + PAD) ? BM * (BK + PAD) : BK * (BM + PAD);
    constexpr uint B_SIZE = BN * (BK + PAD) > BK * (BN + PAD) ? BN * (BK + PAD) : BK * (BN + PAD);
    constexpr uint IN = (A_SIZE + B_SIZE) * sizeof(T) / 4, FLOATS = IN > BM * BN ? IN : BM * BN;
    threadgroup float4 room[FLOATS / 4];
    threadgroup T* as = (threadgroup T*)room;
    threadgroup T* bs = as + A_SIZE;
    const ulong row0 = g.first_row + ulong(tile.y) * BM, col0 = ulong(tile.x) * BN;
    // rows and eights of columns of the tiles as they lie in memory, and their row strides in threadgroup memory
    const uint a_cols = TRANS_A ? BM : BK, b_cols = TRANS_B ? BK : BN, lda = a_cols + PAD, ldb = b_cols + PAD;
    const uint m0 = sg / 2 * (BM / 2), n0 = sg % 2 * (BN / 2);

    simdgroup_matrix<float, 8, 8> acc[FM][FN];
    for (uint i = 0; i < FM; ++i)
        for (uint j = 0; j < FN; ++j) acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (ulong k0 = 0; k0 < g.k; k0 += BK) {
        float v[8];
        for (uint e = tid * 8; e < BM * BK; e += 1024) {
            const uint r = e / a_cols, col = e % a_cols;
            if (TRANS_A) load_a8(a, k0 + r, row0 + col, g.k, g.m, v);
            else load_a8(a, row0 + r, k0 + col, g.m, g.k, v);
            put8(as + r * lda + col, v);
        }
        for (uint e = tid * 8; e < BN * BK; e += 1024) {
            const uint r = e / b_cols, col = e % b_cols;
            if (TRANS_B) load_b8(b, col0 + r, k0 + col, g.n, g.k, v);
            else load_b8(b, k0 + r, col0 + col, g.k, g.n, v);
            put8(bs + r * ldb + col, v);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint kk = 0; kk < BK; kk += 8) {
            simdgroup_matrix<T, 8, 8> fa[FM], fb[FN];
            for (uint i = 0; i < FM; ++i) {
                const uint m = m0 + 8 * i;
                if (TRANS_A) simdgroup_load(fa[i], as + kk * lda + m, lda, ulong2(0), true);
                else simdgroup_load(fa[i], as + m * lda + kk, lda);
            }
            for (uint j = 0; j < FN; ++j) {
                const uint n = n0 + 8 * j;
                if (TRANS_B) simdgroup_load(fb[j], bs + n * ldb + kk, ldb, ulong2(0), true);
                else simdgroup_load(fb[j], bs + kk * ldb + n, ldb);
            }
            for (uint i = 0; i < FM; ++i)
                for (uint j = 0; j < FN; ++j) simdgroup_multiply_accumulate(acc[i][j], fa[i], fb[j], acc[i][j]);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    threadgroup float* cs = (threadgroup float*)room;
    for (uint i = 0; i < FM; ++i)
        for (uint j = 0; j < FN; ++j) simdgroup_store(acc[i][j], cs + (m0 + 8 * i) * BN + n0 + 8 * j, BN);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint e = tid; e < BM * BN; e += 128) {
        const ulong m = row0 + e / BN, n = col0 + e % BN, at = m * g.n + n;
        if (m >= g.m || n >= g.n) continue;
        float v = g.alpha * cs[e];
        device float* wide = (device float*)c;
        if (g.beta != 0.0f) v += g.beta * (OUT == F32 ? wide[at] : float(c[at]));
        if (OPTIONAL) v += dense_at(bias, g.bias_type, n);
        if (OUT == F32) wide[at] = v;
        else c[at] = T(v);
    }
}

#define GEMM(T, suffix)                                                                                               \
    template [[host_name("gemm_64_" #suffix)]] kernel decltype(gemm<T, 64, 64>) gemm<T, 64, 64>;                      \
    template [[host_name("gemm_32_" #suffix)]] kernel decltype(gemm<T, 32, 32>) gemm<T, 32, 32>;
GEMM(float, f32)
GEMM(bfloat, bf16)
GEMM(half, f16)
