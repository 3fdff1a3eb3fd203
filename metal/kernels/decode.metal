// Decoding of block formats, N = 8 or 16 elements at a time from a multiple of N: in every format they share their scales, so
// that a run of 16 reads scales once and codes two bytes a load (blocks start at even addresses, and so do runs in them).
// Layouts: ggml-common.h (GGUF) and bitsandbytes' nf4 with f32 absmax.

// iq4's sixteen values (ggml kvalues_iq4nl).
constant float IQ4_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
// nf4: quantiles of a standard normal (Dettmers et al. 2023, appendix E).
constant float NF4_VALUES[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

inline float half_at(device const uchar* p) { return float(*(device const half*)p); }
inline uint u32_at(device const uchar* p) {
    device const ushort* h = (device const ushort*)p;
    return uint(h[0]) | uint(h[1]) << 16;
}

// Codes: byte i of o is byte i of p, N a multiple of 2.
template <uint N> inline void load_bytes(device const uchar* p, thread uint* o) {
    for (uint i = 0; i < N / 2; ++i) {
        const uint h = ((device const ushort*)p)[i];
        o[2 * i] = h & 255, o[2 * i + 1] = h >> 8;
    }
}

// OCP e4m3 from its bits, subnormals too: no f16 on the way, which a GPU may flush. All ones is NaN.
inline float e4m3(uchar x) {
    const uint m = x & 0x7f;
    const float v = m < 8 ? float(m) * 0.001953125f : as_type<float>((m << 20) + 0x3c000000u);
    return m == 0x7f ? NAN : x & 0x80 ? -v : v;
}

// q4_0, q4_1, q5_0, q5_1 and iq4_nl: blocks of 32, the low nibbles first; j is the run's place in its block in all below.
template <uint N> inline void decode_32(device const uchar* b, uint j, thread float* o) {
    const bool min = TYPE == Q4_1 || TYPE == Q5_1, five = TYPE == Q5_0 || TYPE == Q5_1;
    const float d = half_at(b), m = min ? half_at(b + 2) : 0.0f;
    device const uchar* q = b + (min ? 4 : 2);
    const uint high = five ? u32_at(q) >> j : 0u, shift = j >= 16 ? 4 : 0;
    if (five) q += 4;
    uint c[N];
    load_bytes<N>(q + (j & 15), c);
    for (uint i = 0; i < N; ++i) {
        const uint v = ((c[i] >> shift) & 15) | (five ? ((high >> i) & 1) << 4 : 0u);
        if (TYPE == IQ4_NL) o[i] = d * IQ4_VALUES[v];
        else if (min) o[i] = d * float(v) + m;
        else o[i] = d * (float(v) - (five ? 16.0f : 8.0f));
    }
}
template <uint N> inline void decode_q8_0(device const uchar* b, uint j, thread float* o) {
    const float d = half_at(b);
    uint c[N];
    load_bytes<N>(b + 2 + j, c);
    for (uint i = 0; i < N; ++i) o[i] = d * float(as_type<char>(uchar(c[i])));
}
template <uint N> inline void decode_q2_k(device const uchar* b, uint j, thread float* o) {
    const uint s = b[j / 16], shift = 2 * ((j & 127) / 32);
    const float d = half_at(b + 80) * float(s & 15), m = half_at(b + 82) * float(s >> 4);
    uint c[N];
    load_bytes<N>(b + 16 + 32 * (j / 128) + (j & 31), c);
    for (uint i = 0; i < N; ++i) o[i] = d * float((c[i] >> shift) & 3) - m;
}
template <uint N> inline void decode_q3_k(device const uchar* b, uint j, thread float* o) {
    device const uchar* s = b + 96;
    const uint k = j / 16, shift = 2 * ((j & 127) / 32), bit = j / 32;
    const uint low = k < 8 ? uint(s[k]) & 15 : uint(s[k - 8]) >> 4, high = (uint(s[8 + (k & 3)]) >> (2 * (k / 4))) & 3;
    const float d = half_at(b + 108) * (float(low | high << 4) - 32.0f);
    uint c[N], h[N];
    load_bytes<N>(b + 32 + 32 * (j / 128) + (j & 31), c);
    load_bytes<N>(b + (j & 31), h);
    for (uint i = 0; i < N; ++i) o[i] = d * (float((c[i] >> shift) & 3) - ((h[i] >> bit) & 1 ? 0.0f : 4.0f));
}
// q4_k and q5_k; the 6-bit scale and minimum of sub-block s are ggml's get_scale_min_k4.
template <uint N> inline void decode_q45_k(device const uchar* b, uint j, thread float* o) {
    const uint s = j / 32, shift = (j & 63) >= 32 ? 4 : 0;
    device const uchar* t = b + 4;
    const uint sc = s < 4 ? uint(t[s]) & 63 : (uint(t[s + 4]) & 15) | (uint(t[s - 4]) >> 6) << 4;
    const uint mn = s < 4 ? uint(t[s + 4]) & 63 : uint(t[s + 4]) >> 4 | (uint(t[s]) >> 6) << 4;
    const float d = half_at(b) * float(sc), m = half_at(b + 2) * float(mn);
    uint c[N], h[N];
    load_bytes<N>(b + (TYPE == Q5_K ? 48 : 16) + 32 * (j / 64) + (j & 31), c);
    if (TYPE == Q5_K) load_bytes<N>(b + 16 + (j & 31), h);
    for (uint i = 0; i < N; ++i) {
        uint v = (c[i] >> shift) & 15;
        if (TYPE == Q5_K) v |= ((h[i] >> s) & 1) << 4;
        o[i] = d * float(v) - m;
    }
}
template <uint N> inline void decode_q6_k(device const uchar* b, uint j, thread float* o) {
    const uint n = j / 128, k = (j & 127) / 32, l = j & 31, shift = k >= 2 ? 4 : 0;
    const float d = half_at(b + 208) * float(as_type<char>(b[192 + j / 16]));
    uint c[N], h[N];
    load_bytes<N>(b + 64 * n + 32 * (k & 1) + l, c);
    load_bytes<N>(b + 128 + 32 * n + l, h);
    for (uint i = 0; i < N; ++i) o[i] = d * (float(((c[i] >> shift) & 15) | ((h[i] >> (2 * k)) & 3) << 4) - 32.0f);
}
template <uint N> inline void decode_iq4_xs(device const uchar* b, uint j, thread float* o) {
    const uint s = j / 32, high = *(device const ushort*)(b + 2), shift = (j & 31) >= 16 ? 4 : 0;
    const uint scale = ((uint(b[4 + s / 2]) >> (4 * (s & 1))) & 15) | ((high >> (2 * s)) & 3) << 4;
    const float d = half_at(b) * (float(scale) - 32.0f);
    uint c[N];
    load_bytes<N>(b + 8 + 16 * s + (j & 15), c);
    for (uint i = 0; i < N; ++i) o[i] = d * IQ4_VALUES[(c[i] >> shift) & 15];
}
template <uint N> inline void decode_nf4(device const uchar* b, uint j, thread float* o) {
    const float d = as_type<float>(u32_at(b + 32));
    uint c[N / 2];
    load_bytes<N / 2>(b + j / 2, c);
    for (uint i = 0; i < N; ++i) o[i] = d * NF4_VALUES[i & 1 ? c[i / 2] & 15 : c[i / 2] >> 4];
}

// N dense elements; WIDE_B: rows lie at a multiple of four elements' bytes.
template <uint N, typename T> inline void read_dense(device const T* p, thread float* o) {
    for (uint j = 0; j < N; j += 4) {
        const float4 v = WIDE_B ? float4(*(device const vec<T, 4>*)(p + j)) : float4(float(p[j]), float(p[j + 1]), float(p[j + 2]), float(p[j + 3]));
        for (uint i = 0; i < 4; ++i) o[j + i] = v[i];
    }
}

// Bytes of n elements of TYPE, n a multiple of its block.
inline ulong bytes_of(ulong n) {
    switch (TYPE) {
        case F32: return n * 4;
        case BF16: case F16: return n * 2;
        case FP8: return n;
        case Q4_0: case IQ4_NL: return n / 32 * 18;
        case Q4_1: return n / 32 * 20;
        case Q5_0: return n / 32 * 22;
        case Q5_1: return n / 32 * 24;
        case Q8_0: return n / 32 * 34;
        case Q2_K: return n / 256 * 84;
        case Q3_K: return n / 256 * 110;
        case Q4_K: return n / 256 * 144;
        case Q5_K: return n / 256 * 176;
        case Q6_K: return n / 256 * 210;
        case IQ4_XS: return n / 256 * 136;
        case NF4: return n / 64 * 36;
        default: return 0;
    }
}

// o = elements c..c+N-1 of a row of TYPE; c is a multiple of N unless TYPE is dense.
template <uint N> inline void decode(device const uchar* row, uint c, thread float* o) {
    const uint in32 = c & 31, in256 = c & 255;
    switch (TYPE) {
        case F32: read_dense<N>((device const float*)row + c, o); break;
        case BF16: read_dense<N>((device const bfloat*)row + c, o); break;
        case F16: read_dense<N>((device const half*)row + c, o); break;
        case FP8: for (uint k = 0; k < N; ++k) o[k] = e4m3(row[c + k]); break;
        case Q4_0: case IQ4_NL: decode_32<N>(row + c / 32 * 18, in32, o); break;
        case Q4_1: decode_32<N>(row + c / 32 * 20, in32, o); break;
        case Q5_0: decode_32<N>(row + c / 32 * 22, in32, o); break;
        case Q5_1: decode_32<N>(row + c / 32 * 24, in32, o); break;
        case Q8_0: decode_q8_0<N>(row + c / 32 * 34, in32, o); break;
        case Q2_K: decode_q2_k<N>(row + c / 256 * 84, in256, o); break;
        case Q3_K: decode_q3_k<N>(row + c / 256 * 110, in256, o); break;
        case Q4_K: decode_q45_k<N>(row + c / 256 * 144, in256, o); break;
        case Q5_K: decode_q45_k<N>(row + c / 256 * 176, in256, o); break;
        case Q6_K: decode_q6_k<N>(row + c / 256 * 210, in256, o); break;
        case IQ4_XS: decode_iq4_xs<N>(row + c / 256 * 136, in256, o); break;
        case NF4: decode_nf4<N>(row + c / 64 * 36, c & 63, o); break;
        default: break;
    }
}

// The same where the row ends after `count` more elements; block formats always have N. The others are 0.
template <uint N> inline void decode(device const uchar* row, uint c, uint count, thread float* o) {
    if (count >= N) {
        decode<N>(row, c, o);
        return;
    }
    for (uint j = 0; j < N; ++j) o[j] = j >= count ? 0.0f : TYPE == FP8 ? e4m3(row[c + j]) : dense_at(row, TYPE, c + j);
}
