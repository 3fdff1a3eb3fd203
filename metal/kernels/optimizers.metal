// The optimisers beside AdamW, over f32 parameters: bound by memory. hyper is adamw's, read from device memory.

// torch.optim.SGD: d = clip g + wd p; m = b1 m + d and d = m where there is an m (OPTIONAL); p -= lr d
kernel void sgd(device float* p [[buffer(0)]], device const float* grad [[buffer(1)]], device float* m [[buffer(2)]],
                device const float* hyper [[buffer(3)]], constant EachArgs& g [[buffer(4)]],
                uint i [[thread_position_in_grid]]) {
    if (i >= g.n) return;
    float d = hyper[7] * grad[i] + hyper[4] * p[i];
    if (OPTIONAL) d = m[i] = hyper[1] * m[i] + d;
    p[i] -= hyper[0] * d;
}

// Lion (Chen et al. 2023, algorithm 2)
kernel void lion(device float* p [[buffer(0)]], device const float* grad [[buffer(1)]], device float* m [[buffer(2)]],
                 device const float* hyper [[buffer(3)]], constant EachArgs& g [[buffer(4)]],
                 uint i [[thread_position_in_grid]]) {
    if (i >= g.n) return;
    const float lr = hyper[0], b1 = hyper[1], b2 = hyper[2], d = hyper[7] * grad[i];
    p[i] = p[i] * (1.0f - lr * hyper[4]) - lr * sign(b1 * m[i] + (1.0f - b1) * d);
    m[i] = b2 * m[i] + (1.0f - b2) * d;
}

// Index of the code nearest to x among 256 ascending ones, the lower in a tie.
inline uchar nearest_code(device const float* codes, float x) {
    uint low = 0, high = 255;   // codes[low] <= x < codes[high], where x is within the codes
    while (high - low > 1) {
        const uint mid = (low + high) / 2;
        if (codes[mid] <= x) low = mid;
        else high = mid;
    }
    return uchar(fabs(codes[high] - x) < fabs(codes[low] - x) ? high : low);
}

// AdamW with moments of 8 bits (Dettmers et al. 2022): a threadgroup of 256 threads a block of 256 elements
kernel void adamw8(device float* p [[buffer(0)]], device const float* grad [[buffer(1)]], device uchar* m [[buffer(2)]],
                   device uchar* v [[buffer(3)]], device float* absmax [[buffer(4)]],
                   device const float* codes [[buffer(5)]], device const float* hyper [[buffer(6)]],
                   constant EachArgs& g [[buffer(7)]], uint block [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    const ulong i = ulong(block) * 256 + tid, blocks = g.n / 256;
    const float lr = hyper[0], b1 = hyper[1], b2 = hyper[2], d = hyper[7] * grad[i];
    const float mi = b1 * codes[m[i]] * absmax[block] + (1.0f - b1) * d;
    const float vi = b2 * codes[256 + v[i]] * absmax[blocks + block] + (1.0f - b2) * d * d;
    p[i] -= lr * (hyper[4] * p[i] + (mi / hyper[5]) / (sqrt(vi / hyper[6]) + hyper[3]));
    const float most_m = group_max(fabs(mi), part, lane, sg, nsg), most_v = group_max(fabs(vi), part, lane, sg, nsg);
    if (tid == 0) absmax[block] = most_m, absmax[blocks + block] = most_v;
    m[i] = nearest_code(codes, most_m == 0.0f ? 0.0f : mi / most_m);
    v[i] = nearest_code(codes + 256, most_v == 0.0f ? 0.0f : vi / most_v);
}
