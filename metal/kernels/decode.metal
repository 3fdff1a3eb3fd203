// Decoding of block formats, eight elements at a time: eight consecutive elements share their scales in every format.
// Layouts: ggml-common.h (GGUF) and bitsandbytes' nf4 with f32 absmax. Every block starts at an even address.

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

// OCP e4m3: its exponent and mantissa at an f16's place are the value times 2^-8; all ones is NaN.
inline float e4m3(uchar x) {
    const float v = float(as_type<half>(ushort(uint(x & 0x80) << 8 | uint(x & 0x7f) << 7))) * 256.0f;
    return (x & 0x7f) == 0x7f ? NAN : v;
}

// q4_0, q4_1, q5_0, q5_1 and iq4_nl: blocks of 32, the low nibbles first; j is 0, 8, 16 or 24 in all below to 256.
inline void decode_32(device const uchar* b, uint j, thread float* o) {
    const bool min = TYPE == Q4_1 || TYPE == Q5_1, five = TYPE == Q5_0 || TYPE == Q5_1;
    const float d = half_at(b), m = min ? half_at(b + 2) : 0.0f;
    device const uchar* q = b + (min ? 4 : 2);
    const uint high = five ? u32_at(q) : 0u, shift = j >= 16 ? 4 : 0;
    if (five) q += 4;
    for (uint i = 0; i < 8; ++i) {
        const uint v = ((uint(q[(j & 15) + i]) >> shift) & 15) | (five ? ((high >> (j + i)) & 1) << 4 : 0u);
        if (TYPE == IQ4_NL) o[i] = d * IQ4_VALUES[v];
        else if (min) o[i] = d * float(v) + m;
        else o[i] = d * (float(v) - (five ? 16.0f : 8.0f));
    }
}
inline void decode_q8_0(device const uchar* b, uint j, thread float* o) {
    const float d = half_at(b);
    for (uint i = 0; i < 8; ++i) o[i] = d * float(as_type<char>(b[2 + j + i]));
}
inline void decode_q2_k(device const uchar* b, uint j, thread float* o) {
    const uint s = b[j / 16], shift = 2 * ((j & 127) / 32);
    device const uchar* q = b + 16 + 32 * (j / 128) + (j & 31);
    const float d = half_at(b + 80) * float(s & 15), m = half_at(b + 82) * float(s >> 4);
    for (uint i = 0; i < 8; ++i) o[i] = d * float((uint(q[i]) >> shift) & 3) - m;
}
inline void decode_q3_k(device const uchar* b, uint j, thread float* o) {
    device const uchar *h = b + (j & 31), *q = b + 32 + 32 * (j / 128) + (j & 31), *s = b + 96;
    const uint k = j / 16, shift = 2 * ((j & 127) / 32), bit = j / 32;
    const uint low = k < 8 ? uint(s[k]) & 15 : uint(s[k - 8]) >> 4, high = (uint(s[8 + (k & 3)]) >> (2 * (k / 4))) & 3;
    const float d = half_at(b + 108) * (float(low | high << 4) - 32.0f);
    for (uint i = 0; i < 8; ++i) {
        o[i] = d * (float((uint(q[i]) >> shift) & 3) - ((uint(h[i]) >> bit) & 1 ? 0.0f : 4.0f));
    }
}
// q4_k and q5_k; the 6-bit scale and minimum of sub-block s are ggml's get_scale_min_k4.
inline void decode_q45_k(device const uchar* b, uint j, thread float* o) {
    const uint s = j / 32, shift = (j & 63) >= 32 ? 4 : 0;
    device const uchar* t = b + 4;
    const uint sc = s < 4 ? uint(t[s]) & 63 : (uint(t[s + 4]) & 15) | (uint(t[s - 4]) >> 6) << 4;
    const uint mn = s < 4 ? uint(t[s + 4]) & 63 : uint(t[s + 4]) >> 4 | (uint(t[s]) >> 6) << 4;
    const float d = half_at(b) * float(sc), m = half_at(b + 2) * float(mn);
    device const uchar* q = b + (TYPE == Q5_K ? 48 : 16) + 32 * (j / 64) + (j & 31);
    for (uint i = 0; i < 8; ++i) {
        uint v = (uint(q[i]) >> shift) & 15;
        if (TYPE == Q5_K) v |= ((uint(b[16 + (j & 31) + i]) >> s) & 1) << 4;
        o[i] = d * float(v) - m;
    }
}
inline void decode_q6_k(device const uchar* b, uint j, thread float* o) {
    const uint n = j / 128, k = (j & 127) / 32, l = j & 31;
    device const uchar *ql = b + 64 * n + 32 * (k & 1) + l, *qh = b + 128 + 32 * n + l;
    const float d = half_at(b + 208) * float(as_type<char>(b[192 + j / 16]));
    for (uint i = 0; i < 8; ++i) {
        o[i] = d * (float(((uint(ql[i]) >> (k >= 2 ? 4 : 0)) & 15) | ((uint(qh[i]) >> (2 * k)) & 3) << 4) - 32.0f);
    }
}
inline void decode_iq4_xs(device const uchar* b, uint j, thread float* o) {
    const uint s = j / 32, high = *(device const ushort*)(b + 2), shift = (j & 31) >= 16 ? 4 : 0;
    const uint scale = ((uint(b[4 + s / 2]) >> (4 * (s & 1))) & 15) | ((high >> (2 * s)) & 3) << 4;
    const float d = half_at(b) * (float(scale) - 32.0f);
    device const uchar* q = b + 8 + 16 * s + (j & 15);
    for (uint i = 0; i < 8; ++i) o[i] = d * IQ4_VALUES[(uint(q[i]) >> shift) & 15];
}
inline void decode_nf4(device const uchar* b, uint j, thread float* o) {
    const float d = as_type<float>(u32_at(b + 32));
    for (uint i = 0; i < 8; ++i) o[i] = d * NF4_VALUES[(uint(b[(j + i) / 2]) >> ((j + i) & 1 ? 0 : 4)) & 15];
}

// Eight dense elements; `wide`: they lie at a multiple of four elements' bytes.
template <typename T> inline void read8(device const T* p, bool wide, thread float* o) {
    if (wide) {
        const float4 x = float4(((device const vec<T, 4>*)p)[0]), y = float4(((device const vec<T, 4>*)p)[1]);
        for (uint j = 0; j < 4; ++j) o[j] = x[j], o[4 + j] = y[j];
    } else {
        for (uint j = 0; j < 8; ++j) o[j] = float(p[j]);
    }
}

// o = elements i..i+7 of an array of TYPE; i is a multiple of 8 unless TYPE is dense.
inline void decode8(device const uchar* p, ulong i, thread float* o) {
    const uint j32 = uint(i & 31), j256 = uint(i & 255);
    switch (TYPE) {
        case F32: read8((device const float*)p + i, WIDE_B, o); break;
        case BF16: read8((device const bfloat*)p + i, WIDE_B, o); break;
        case F16: read8((device const half*)p + i, WIDE_B, o); break;
        case FP8: for (uint k = 0; k < 8; ++k) o[k] = e4m3(p[i + k]); break;
        case Q4_0: decode_32(p + i / 32 * 18, j32, o); break;
        case Q4_1: decode_32(p + i / 32 * 20, j32, o); break;
        case Q5_0: decode_32(p + i / 32 * 22, j32, o); break;
        case Q5_1: decode_32(p + i / 32 * 24, j32, o); break;
        case IQ4_NL: decode_32(p + i / 32 * 18, j32, o); break;
        case Q8_0: decode_q8_0(p + i / 32 * 34, j32, o); break;
        case Q2_K: decode_q2_k(p + i / 256 * 84, j256, o); break;
        case Q3_K: decode_q3_k(p + i / 256 * 110, j256, o); break;
        case Q4_K: decode_q45_k(p + i / 256 * 144, j256, o); break;
        case Q5_K: decode_q45_k(p + i / 256 * 176, j256, o); break;
        case Q6_K: decode_q6_k(p + i / 256 * 210, j256, o); break;
        case IQ4_XS: decode_iq4_xs(p + i / 256 * 136, j256, o); break;
        case NF4: decode_nf4(p + i / 64 * 36, uint(i & 63), o); break;
        default: break;
    }
}

// Elements i..i+count-1 of an array of TYPE, count at most 8; block formats always have 8. The others are 0.
inline void decode_upto8(device const uchar* p, ulong i, uint count, thread float* o) {
    if (count >= 8) {
        decode8(p, i, o);
        return;
    }
    for (uint j = 0; j < 8; ++j) {
        o[j] = j >= count ? 0.0f : TYPE == FP8 ? e4m3(p[i + j]) : dense_at(p, TYPE, i + j);
    }
}
