// RMS norm (Zhang & Sennrich 2019) and layer norm over rows of D, with their backward passes: a threadgroup a row.
// out = xhat * w (+ b), xhat = (x - mean) * rstd. KIND is RMS or LAYER; w and b are f32, or of TYPE. A row is read again
// from the cache for each pass over it; memory moves 2 N D activations. Its dw and db are in columns.metal.

template <typename T> kernel void norm(device const T* x [[buffer(0)]], device const uchar* w [[buffer(1)]],
                                       device const uchar* b [[buffer(2)]], device T* out [[buffer(3)]],
                                       device float2* stat [[buffer(4)]], constant RowArgs& g [[buffer(5)]],
                                       uint row [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    device const T* in = x + row * g.cols;
    device T* to = out + row * g.cols;
    const ulong step = nsg * 128, first = tid * 4;
    const float D = float(g.cols);
    float mean = 0.0f, sum = 0.0f;
    if (KIND == LAYER) {
        for (ulong i = first; i < g.cols; i += step) {
            const float4 v = load4(in, i, g.cols);
            sum += (v.x + v.y) + (v.z + v.w);
        }
        mean = group_sum(sum, part, lane, sg, nsg) / D;
    }
    float squares = 0.0f;
    for (ulong i = first; i < g.cols; i += step) {
        float4 v = load4(in, i, g.cols) - mean;
        for (uint j = 0; j < 4; ++j) squares += i + j < g.cols ? v[j] * v[j] : 0.0f;
    }
    const float rstd = 1.0f / sqrt(group_sum(squares, part, lane, sg, nsg) / D + g.eps);
    if (tid == 0) stat[row] = float2(mean, rstd);
    for (ulong i = first; i < g.cols; i += step) {
        float4 v = (load4(in, i, g.cols) - mean) * rstd;
        for (uint j = 0; j < 4 && i + j < g.cols; ++j) {
            v[j] = v[j] * (dense_at(w, TYPE, i + j) + g.plus) + (OPTIONAL ? dense_at(b, TYPE, i + j) : 0.0f);
        }
        store4(to, i, g.cols, v);
    }
}
FOR_FLOATS(norm)

// dx += rstd * (u - mean(u) [layer] - xhat * mean(u * xhat)), u = dOut * w
template <typename T> kernel void norm_bwd(device T* dx [[buffer(0)]], device const T* d_out [[buffer(1)]],
                                           device const T* x [[buffer(2)]], device const uchar* w [[buffer(3)]],
                                           device const float2* stat [[buffer(4)]], constant RowArgs& g [[buffer(5)]],
                                           uint row [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    const ulong at = row * g.cols, step = nsg * 128, first = tid * 4;
    const float mean = stat[row].x, rstd = stat[row].y, D = float(g.cols);
    float su = 0.0f, sux = 0.0f;
    for (ulong i = first; i < g.cols; i += step) {
        const float4 u = load4(d_out + at, i, g.cols), h = (load4(x + at, i, g.cols) - mean) * rstd;
        for (uint j = 0; j < 4 && i + j < g.cols; ++j) {
            const float v = u[j] * (dense_at(w, TYPE, i + j) + g.plus);
            su += v, sux += v * h[j];
        }
    }
    const float mu = KIND == LAYER ? group_sum(su, part, lane, sg, nsg) / D : 0.0f;
    const float mux = group_sum(sux, part, lane, sg, nsg) / D;
    for (ulong i = first; i < g.cols; i += step) {
        const float4 u = load4(d_out + at, i, g.cols), h = (load4(x + at, i, g.cols) - mean) * rstd;
        float4 d = load4(dx + at, i, g.cols);
        for (uint j = 0; j < 4 && i + j < g.cols; ++j) {
            d[j] += rstd * (u[j] * (dense_at(w, TYPE, i + j) + g.plus) - mu - h[j] * mux);
        }
        store4(dx + at, i, g.cols, d);
    }
}
FOR_FLOATS(norm_bwd)
