// c[M,N] = alpha a b^T + beta c (+ bias) for few rows, M <= 8 (decoding): a simdgroup has four rows of b, its lanes eight
// elements at a time along K, so that each weight is read and decoded once for all rows of a. Bound by reading b. KIND is M.
constant constexpr uint MOST_ROWS = 8, COLS = 4;

// Elements k..k+7 of a row of K; those past its end are 0.
template <typename T> inline void load_8(device const T* p, ulong k, ulong K, thread float* o) {
    if (k + 8 <= K && WIDE) {
        const float4 x = float4(((device const vec<T, 4>*)(p + k))[0]), y = float4(((device const vec<T, 4>*)(p + k))[1]);
        for (uint j = 0; j < 4; ++j) o[j] = x[j], o[4 + j] = y[j];
    } else {
        for (uint j = 0; j < 8; ++j) o[j] = k + j < K ? float(p[k + j]) : 0.0f;
    }
}

template <typename T> kernel void gemm_rows(device const T* a [[buffer(0)]], device const uchar* b [[buffer(1)]],
                                            device T* c [[buffer(2)]], device const uchar* bias [[buffer(3)]],
                                            constant GemmArgs& g [[buffer(4)]],
                                            uint group [[threadgroup_position_in_grid]], TEAM) {
    const ulong n0 = (ulong(group) * nsg + sg) * COLS;
    device const uchar* rows[COLS];
    for (uint j = 0; j < COLS; ++j) rows[j] = b + bytes_of(min(n0 + j, g.n - 1) * g.k);
    float acc[COLS][MOST_ROWS];
    for (uint j = 0; j < COLS; ++j)
        for (uint m = 0; m < MOST_ROWS; ++m) acc[j][m] = 0.0f;
    for (ulong k = lane * 8; k < g.k; k += 256) {
        const uint count = uint(min(g.k - k, ulong(8)));
        float w[COLS][8], x[8];
        for (uint j = 0; j < COLS; ++j) decode<8>(rows[j], uint(k), count, w[j]);
        for (uint m = 0; m < MOST_ROWS && m < KIND; ++m) {
            load_8(a + m * g.k, k, g.k, x);
            for (uint j = 0; j < COLS; ++j)
                for (uint i = 0; i < 8; ++i) acc[j][m] = fma(x[i], w[j][i], acc[j][m]);
        }
    }
    for (uint j = 0; j < COLS; ++j) {
        for (uint m = 0; m < MOST_ROWS && m < KIND; ++m) {
            float v = g.alpha * simd_sum(acc[j][m]);
            const ulong n = n0 + j, at = m * g.n + n;
            if (lane != 0 || n >= g.n) continue;
            device float* wide = (device float*)c;
            if (g.beta != 0.0f) v += g.beta * (OUT == F32 ? wide[at] : float(c[at]));
            if (OPTIONAL) v += dense_at(bias, g.bias_type, n);
            if (OUT == F32) wide[at] = v;
            else c[at] = T(v);
        }
    }
}
FOR_FLOATS(gemm_rows)
