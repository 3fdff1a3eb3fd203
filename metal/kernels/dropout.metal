// out[i] = x[i] * factor where Philox4x32-10 (Salmon et al. 2011) keeps element i, else 0: word i & 3 of the counter
// (i >> 2, stream, 0, 0) under the key seed, as src/core/philox.ts. Four elements a thread, one block of random words.
inline uint4 philox(uint c0, uint c1, uint k0, uint k1) {
    uint c2 = 0, c3 = 0;
    for (uint round = 0; round < 10; ++round) {
        const uint h0 = mulhi(0xd2511f53u, c0), l0 = 0xd2511f53u * c0;
        const uint h1 = mulhi(0xcd9e8d57u, c2), l1 = 0xcd9e8d57u * c2;
        c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
    return uint4(c0, c1, c2, c3);
}

template <typename T> kernel void dropout(device const T* x [[buffer(0)]], device const uint* seed [[buffer(1)]],
                                          device T* out [[buffer(2)]], constant EachArgs& g [[buffer(3)]],
                                          uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i >= g.n) return;
    const uint4 word = philox(at, g.stream, seed[0], seed[1]);
    const float4 v = load4(x, i, g.n) * g.factor;
    float4 kept;
    for (uint j = 0; j < 4; ++j) kept[j] = word[j] >= g.threshold ? v[j] : 0.0f;
    store4(out, i, g.n, kept);
}
FOR_FLOATS(dropout)

// out[n,j] = x[n,j] + magnitude[n] * u, u = (2 word + 1) / 2^32 - 1: NEFTune's noise
template <typename T> kernel void noise(device const T* x [[buffer(0)]], device const float* magnitude [[buffer(1)]],
                                        device const uint* seed [[buffer(2)]], device T* out [[buffer(3)]],
                                        constant EachArgs& g [[buffer(4)]], uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i >= g.n) return;
    const uint4 word = philox(at, g.stream, seed[0], seed[1]);
    float4 v = load4(x, i, g.n);
    for (uint j = 0; j < 4 && i + j < g.n; ++j) {
        v[j] += magnitude[(i + j) / g.cols] * ((float(as_type<int>(word[j] ^ 0x80000000u)) + 0.5f) / 2147483648.0f);
    }
    store4(out, i, g.n, v);
}
FOR_FLOATS(noise)
