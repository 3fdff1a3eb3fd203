// c[M,N] = alpha op(a) op(b) + beta c (+ bias): a BM x BN tile of c a threadgroup of four simdgroups, each a quadrant of
// 8x8 simdgroup matrices with f32 accumulators. Tiles of 32 along K pass through threadgroup memory in a's type, stored as
// they lie in memory (simdgroup_load transposes): a thread brings one run of a and one of b, which is decoded from its TYPE on
// the way. 2 M N K FLOP, bound by arithmetic above about 30 rows. The 32 x 32 tile serves thin products (adapters) and small ones;
// where those are too few threadgroups for the GPU, each takes a span of K into f32 partial results, and gemm_sum adds them.

constant constexpr uint BK = 32, GEMM_THREADS = 128;

// N elements of a row of T to threadgroup memory as they are; those past `count` are 0.
template <typename T, uint N> inline void copy_run(threadgroup T* to, device const T* p, uint count, bool wide) {
    if (count >= N && wide) {
        for (uint j = 0; j < N; j += 4) *(threadgroup vec<T, 4>*)(to + j) = *(device const vec<T, 4>*)(p + j);
    } else {
        for (uint j = 0; j < N; ++j) to[j] = j < count ? p[j] : T(0.0f);
    }
}
// The same from a row of TYPE, from column c.
template <typename T, uint N> inline void decode_run(threadgroup T* to, device const uchar* row, uint c, uint count) {
    constexpr uint OWN = is_same_v<T, float> ? F32 : is_same_v<T, half> ? F16 : BF16;
    if (TYPE == OWN) {
        copy_run<T, N>(to, (device const T*)row + c, count, WIDE_B);
        return;
    }
    float v[N];
    decode<N>(row, c, count, v);
    for (uint j = 0; j < N; j += 4) *(threadgroup vec<T, 4>*)(to + j) = vec<T, 4>(float4(v[j], v[j + 1], v[j + 2], v[j + 3]));
}

// A thread's run of a tile as it lies in memory: place in the tile, row and column in the matrix, R rows of C columns.
struct Run {
    uint r, c;
    ulong row, col, R, C;
};
// How many of its n elements are in the matrix.
inline uint within(thread const Run& t, uint n) {
    return t.row < t.R && t.col < t.C ? uint(min(t.C - t.col, ulong(n))) : 0;
}
inline Run run_of(uint e, uint tile_cols, bool along_rows, ulong other, ulong K, ulong width) {
    const uint r = e / tile_cols, c = e % tile_cols;
    if (along_rows) return Run{r, c, ulong(r), other + c, K, width};
    return Run{r, c, other + r, ulong(c), width, K};
}

template <typename T, uint BM, uint BN>
kernel void gemm(device const T* a [[buffer(0)]], device const uchar* b [[buffer(1)]], device T* c [[buffer(2)]],
                 device const uchar* bias [[buffer(3)]], constant GemmArgs& g [[buffer(4)]],
                 uint3 tile [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                 uint sg [[simdgroup_index_in_threadgroup]]) {
    constexpr uint PAD = 16 / sizeof(T), FM = BM / 16, FN = BN / 16, RA = BM * BK / GEMM_THREADS, RB = BN * BK / GEMM_THREADS;
    constexpr uint A_SIZE = BM * (BK + PAD) > BK * (BM + PAD) ? BM * (BK + PAD) : BK * (BM + PAD);
    constexpr uint B_SIZE = BN * (BK + PAD) > BK * (BN + PAD) ? BN * (BK + PAD) : BK * (BN + PAD);
    // the result goes out in two halves, so that it needs no more room than the tiles
    constexpr uint IN = (A_SIZE + B_SIZE) * sizeof(T) / 4, HALF = BM / 2 * BN, FLOATS = IN > HALF ? IN : HALF;
    threadgroup float4 room[FLOATS / 4];
    threadgroup T* as = (threadgroup T*)room;
    threadgroup T* bs = as + A_SIZE;
    const ulong row0 = g.first_row + ulong(tile.y) * BM, col0 = ulong(tile.x) * BN;
    // columns of the tiles as they lie in memory, and their row strides in threadgroup memory
    const uint a_cols = TRANS_A ? BM : BK, b_cols = TRANS_B ? BK : BN, lda = a_cols + PAD, ldb = b_cols + PAD;
    const uint m0 = sg / 2 * (BM / 2), n0 = sg % 2 * (BN / 2);
    const ulong k_first = ulong(tile.z) * g.span, k_last = min(g.k, k_first + g.span);
    Run ra = run_of(tid * RA, a_cols, TRANS_A, row0, g.k, g.m), rb = run_of(tid * RB, b_cols, !TRANS_B, col0, g.k, g.n);
    (TRANS_A ? ra.row : ra.col) += k_first;
    (TRANS_B ? rb.col : rb.row) += k_first;
    // 64-bit products once, not in the loop
    device const T* pa = a + ra.row * ra.C + ra.col;
    device const uchar* pb = b + bytes_of(rb.row * rb.C);
    const ulong step_a = TRANS_A ? BK * g.m : BK, step_b = TRANS_B ? 0 : bytes_of(BK * g.n);

    simdgroup_matrix<float, 8, 8> acc[FM][FN];
    for (uint i = 0; i < FM; ++i)
        for (uint j = 0; j < FN; ++j) acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (ulong k0 = k_first; k0 < k_last; k0 += BK) {
        copy_run<T, RA>(as + ra.r * lda + ra.c, pa, within(ra, RA), WIDE);
        decode_run<T, RB>(bs + rb.r * ldb + rb.c, pb, uint(rb.col), within(rb, RB));
        pa += step_a, pb += step_b;
        (TRANS_A ? ra.row : ra.col) += BK;
        (TRANS_B ? rb.col : rb.row) += BK;
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
    // a thread has one column of the tile, and every ROWS-th row
    constexpr uint ROWS = GEMM_THREADS / BN;
    const ulong n = col0 + tid % BN;
    const float added = OPTIONAL && n < g.n ? dense_at(bias, g.bias_type, n) : 0.0f;
    device float* wide = (device float*)c + tile.z * g.m * g.n;
    for (uint h = 0; h < 2; ++h) {
        if (sg / 2 == h) {
            for (uint i = 0; i < FM; ++i)
                for (uint j = 0; j < FN; ++j) simdgroup_store(acc[i][j], cs + 8 * i * BN + n0 + 8 * j, BN);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const ulong first = row0 + h * (BM / 2);
        ulong at = (first + tid / BN) * g.n + n;
        for (uint r = tid / BN; r < BM / 2 && first + r < g.m && n < g.n; r += ROWS, at += ROWS * g.n) {
            float v = g.alpha * cs[r * BN + tid % BN];
            if (g.beta != 0.0f) v += g.beta * (OUT == F32 ? wide[at] : float(c[at]));
            v += added;
            if (OUT == F32) wide[at] = v;
            else c[at] = T(v);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

// c = alpha * sum of the partial results [splits,M,N], in order, + beta c (+ bias)
template <typename T> kernel void gemm_sum(device const float* parts [[buffer(0)]], device T* c [[buffer(1)]],
                                           device const uchar* bias [[buffer(2)]], constant GemmArgs& g [[buffer(3)]],
                                           uint i [[thread_position_in_grid]]) {
    const ulong all = g.m * g.n;
    if (i >= all) return;
    float v = 0.0f;
    for (uint s = 0; s < g.splits; ++s) v += parts[s * all + i];
    v *= g.alpha;
    device float* wide = (device float*)c;
    if (g.beta != 0.0f) v += g.beta * (OUT == F32 ? wide[i] : float(c[i]));
    if (OPTIONAL) v += dense_at(bias, g.bias_type, i % g.n);
    if (OUT == F32) wide[i] = v;
    else c[i] = T(v);
}
FOR_FLOATS(gemm_sum)

#define GEMM(T, suffix)                                                                                               \
    template [[host_name("gemm_64_" #suffix)]] kernel decltype(gemm<T, 64, 64>) gemm<T, 64, 64>;                      \
    template [[host_name("gemm_32_" #suffix)]] kernel decltype(gemm<T, 32, 32>) gemm<T, 32, 32>;
GEMM(float, f32)
GEMM(bfloat, bf16)
GEMM(half, f16)
