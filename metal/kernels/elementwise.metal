// add, scale, divide, copy (conversion and decoding), copy_bytes, fill, scale_cols: one read of each input, one write of the
// output, bound by memory. Four elements a thread (eight in copy), a thread a place in a one-dimensional grid.

template <typename T> kernel void add(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]],
                                      device T* out [[buffer(2)]], constant EachArgs& g [[buffer(3)]],
                                      uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i < g.n) store4(out, i, g.n, load4(a, i, g.n) + load4(b, i, g.n));
}
FOR_FLOATS(add)

template <typename T> kernel void scale(device const T* x [[buffer(0)]], device T* out [[buffer(1)]],
                                        constant EachArgs& g [[buffer(2)]], uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i < g.n) store4(out, i, g.n, load4(x, i, g.n) * g.factor);
}
FOR_FLOATS(scale)

kernel void divide(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]], device float* out [[buffer(2)]],
                   constant EachArgs& g [[buffer(3)]], uint i [[thread_position_in_grid]]) {
    if (i < g.n) out[i] = a[i] / b[i];
}

// out[n,j] = x[n,j] * s[j]; the rows are a multiple of four long where WIDE
template <typename T> kernel void scale_cols(device const T* x [[buffer(0)]], device const float* s [[buffer(1)]],
                                             device T* out [[buffer(2)]], constant EachArgs& g [[buffer(3)]],
                                             uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i >= g.n) return;
    const float4 v = load4(x, i, g.n);
    float4 w;
    for (uint j = 0; j < 4; ++j) w[j] = s[(i + j) % g.cols];
    store4(out, i, g.n, v * w);
}
FOR_FLOATS(scale_cols)

// out = x, converted or decoded from TYPE
template <typename T> kernel void copy(device const uchar* x [[buffer(0)]], device T* out [[buffer(1)]],
                                       constant EachArgs& g [[buffer(2)]], uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 8;
    if (i >= g.n) return;
    float v[8];
    decode<8>(x + bytes_of(i & ~ulong(255)), uint(i & 255), uint(min(g.n - i, ulong(8))), v);
    store4(out, i, g.n, float4(v[0], v[1], v[2], v[3]));
    if (i + 4 < g.n) store4(out, i + 4, g.n, float4(v[4], v[5], v[6], v[7]));
}
FOR_FLOATS(copy)

// The same bytes, sixteen a thread; four words at once where WIDE
kernel void copy_bytes(device const uchar* x [[buffer(0)]], device uchar* out [[buffer(1)]],
                       constant EachArgs& g [[buffer(2)]], uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 16;
    if (i >= g.n) return;
    if (WIDE && i + 16 <= g.n) {
        *(device uint4*)(out + i) = *(device const uint4*)(x + i);
        return;
    }
    for (ulong j = i; j < min(g.n, i + 16); ++j) out[j] = x[j];
}

template <typename T> kernel void fill(device T* out [[buffer(0)]], constant EachArgs& g [[buffer(1)]],
                                       uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    for (ulong j = i; j < min(g.n, i + 4); ++j) out[j] = T(g.factor);
}
FOR_FLOATS(fill)
template <typename T> kernel void fill_integer(device T* out [[buffer(0)]], constant EachArgs& g [[buffer(1)]],
                                               uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    for (ulong j = i; j < min(g.n, i + 4); ++j) out[j] = T(g.integer);
}
template [[host_name("fill_i32")]] kernel decltype(fill_integer<int>) fill_integer<int>;
template [[host_name("fill_u8")]] kernel decltype(fill_integer<uchar>) fill_integer<uchar>;
