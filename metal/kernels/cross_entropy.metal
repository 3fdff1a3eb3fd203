// Softmax cross-entropy, a threadgroup a row of V logits: a first pass for the running maximum and sum, a second for the
// gradient, over the logits in place. Reads the row twice and writes it once; bound by memory. With a soft cap t,
// z' = t tanh(z/t); loss = (1-e)(lse - z'[y]) + e (lse - mean z') + zl lse^2.
inline float capped(float z, float t) { return t > 0.0f ? t * precise::tanh(z / t) : z; }

template <typename T> kernel void cross_entropy(device T* logits [[buffer(0)]], device const int* target [[buffer(1)]],
                                                device const float* weight [[buffer(2)]], device float* loss [[buffer(3)]],
                                                constant LossArgs& g [[buffer(4)]],
                                                uint n [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    device T* row = logits + n * g.vocab;
    const float w = weight[n];
    const ulong first = tid * 4, step = nsg * 128;
    if (w == 0.0f) {
        for (ulong i = first; i < g.vocab; i += step) store4(row, i, g.vocab, float4(0.0f));
        if (tid == 0) loss[n] = 0.0f;
        return;
    }
    const int y = target[n];
    const bool known = y >= 0 && ulong(y) < g.vocab;   // a target outside the vocabulary gives NaN, never a stray read
    const float at_target = capped(float(row[known ? y : 0]), g.softcap);
    float top = -INFINITY, sum = 0.0f, all = 0.0f;
    for (ulong i = first; i < g.vocab; i += step) {
        float4 z = load4((device const T*)row, i, g.vocab);
        const uint count = uint(min(g.vocab - i, ulong(4)));
        float high = top;
        for (uint j = 0; j < count; ++j) z[j] = capped(z[j], g.softcap), high = max(high, z[j]), all += z[j];
        if (high > top) sum *= exp(top - high), top = high;
        for (uint j = 0; j < count; ++j) sum += exp(z[j] - top);
    }
    const float peak = group_max(top, part, lane, sg, nsg);
    sum = group_sum(top == -INFINITY ? 0.0f : sum * exp(top - peak), part, lane, sg, nsg);
    const float lse = peak + log(sum), e = g.smoothing / float(g.vocab);
    if (g.smoothing > 0.0f) all = group_sum(all, part, lane, sg, nsg);
    if (tid == 0) {
        float l = (1.0f - g.smoothing) * (lse - at_target) + g.z * lse * lse;
        if (g.smoothing > 0.0f) l += g.smoothing * lse - e * all;
        loss[n] = known ? l : NAN;
    }
    // every thread has read the target's logit before its place is overwritten: the reductions are the barrier
    const float grow = w * (1.0f + 2.0f * g.z * lse);
    for (ulong i = first; i < g.vocab; i += step) {
        float4 z = load4((device const T*)row, i, g.vocab);
        for (uint j = 0; j < 4 && i + j < g.vocab; ++j) {
            const float c = capped(z[j], g.softcap);
            float d = grow * exp(c - lse) - w * (e + (i + j == ulong(y) ? 1.0f - g.smoothing : 0.0f));
            if (g.softcap > 0.0f) d *= 1.0f - (c / g.softcap) * (c / g.softcap);
            z[j] = known ? d : NAN;
        }
        store4(row, i, g.vocab, z);
    }
}
FOR_FLOATS(cross_entropy)
