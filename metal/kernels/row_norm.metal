// out[o] = || w[o,:] + scale * (B A)[o,:] ||, DoRA's norm (Liu et al. 2024, eq. 5); w of TYPE. A threadgroup a row, A [R,I]
// from the cache: O I R multiply-adds and one read of w.
kernel void row_norm(device const uchar* w [[buffer(0)]], device const float* a [[buffer(1)]],
                     device const float* b [[buffer(2)]], device float* out [[buffer(3)]],
                     constant RowArgs& g [[buffer(4)]], uint row [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    float s = 0.0f;
    for (ulong i = tid * 8; i < g.cols; i += nsg * 256) {
        float v[8], low[8];
        const uint count = uint(min(g.cols - i, ulong(8)));
        decode<8>(w + bytes_of(row * g.cols), uint(i), count, v);
        for (uint j = 0; j < 8; ++j) low[j] = 0.0f;
        for (uint r = 0; r < g.inner; ++r) {
            const float br = b[row * g.inner + r];
            for (uint j = 0; j < count; ++j) low[j] = fma(br, a[r * g.cols + i + j], low[j]);
        }
        for (uint j = 0; j < count; ++j) {
            const float x = v[j] + g.scale * low[j];
            s += x * x;
        }
    }
    s = group_sum(s, part, lane, sg, nsg);
    if (tid == 0) out[row] = sqrt(s);
}
