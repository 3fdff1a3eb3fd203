// Gradient norm, clip factor and AdamW (Loshchilov & Hutter 2019), over f32 parameters; all that changes from step to step
// is read from device memory. Bound by memory: AdamW moves 28 bytes a parameter.

// part[group] = sum of squares of its share of g
kernel void square_parts(device const float* x [[buffer(0)]], device float* parts [[buffer(1)]],
                         constant EachArgs& g [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                         uint groups [[threadgroups_per_grid]], TEAM) {
    threadgroup float part[32];
    float s = 0.0f;
    for (ulong i = ulong(group) * 256 + tid; i < g.n; i += ulong(groups) * 256) s = fma(x[i], x[i], s);
    s = group_sum(s, part, lane, sg, nsg);
    if (tid == 0) parts[group] = s;
}

// out[0] += factor * sum of n parts, by one threadgroup; = where KIND is 1
kernel void add_parts(device const float* parts [[buffer(0)]], device float* out [[buffer(1)]],
                      constant EachArgs& g [[buffer(2)]], TEAM) {
    threadgroup float part[32];
    float s = 0.0f;
    for (ulong i = tid; i < g.n; i += 256) s += parts[i];
    s = group_sum(s, part, lane, sg, nsg) * g.factor;
    if (tid == 0) out[0] = KIND == 1 ? s : out[0] + s;
}

// hyper[7] = min(1, factor / (sqrt(sum) + 1e-6)), torch's clip_grad_norm_; 1 when factor is 0
kernel void clip_factor(device const float* sum_sq [[buffer(0)]], device float* hyper [[buffer(1)]],
                        constant EachArgs& g [[buffer(2)]], uint i [[thread_position_in_grid]]) {
    if (i == 0) hyper[7] = g.factor > 0.0f ? min(1.0f, g.factor / (sqrt(sum_sq[0]) + 1e-6f)) : 1.0f;
}

// hyper: lr, b1, b2, eps, weight decay, 1-b1^t, 1-b2^t, clip factor
kernel void adamw(device float* p [[buffer(0)]], device const float* grad [[buffer(1)]], device float* m [[buffer(2)]],
                  device float* v [[buffer(3)]], device const float* hyper [[buffer(4)]],
                  constant EachArgs& g [[buffer(5)]], uint i [[thread_position_in_grid]]) {
    if (i >= g.n) return;
    const float lr = hyper[0], b1 = hyper[1], b2 = hyper[2], d = grad[i] * hyper[7];
    const float mi = b1 * m[i] + (1.0f - b1) * d, vi = b2 * v[i] + (1.0f - b2) * d * d;
    m[i] = mi, v[i] = vi;
    p[i] = p[i] * (1.0f - lr * hyper[4]) - lr * (mi / hyper[5]) / (sqrt(vi / hyper[6]) + hyper[3]);
}
