// Rows of a table by token id, and the gradient of that. A threadgroup a token; bound by memory (2 N D elements).

// out[n] = scale * table[ids[n]]; an id outside the table gives NaN, never a stray read
template <typename T> kernel void embed(device const uchar* table [[buffer(0)]], device const int* ids [[buffer(1)]],
                                        device T* out [[buffer(2)]], constant RowArgs& g [[buffer(3)]],
                                        uint n [[threadgroup_position_in_grid]], TEAM) {
    const int id = ids[n];
    const bool known = id >= 0 && ulong(id) < g.rows;
    device const uchar* row = table + (known ? bytes_of(ulong(id) * g.cols) : 0);
    for (ulong i = tid * 8; i < g.cols; i += nsg * 256) {
        float v[8];
        const uint count = uint(min(g.cols - i, ulong(8)));
        decode<8>(row, uint(i), count, v);
        for (uint j = 0; j < count; ++j) out[n * g.cols + i + j] = T(known ? v[j] * g.scale : NAN);
    }
}
FOR_FLOATS(embed)

// d_table[ids[n]] += scale * d_out[n]: the threadgroup of an id's first occurrence adds all its occurrences in order of n,
// so that the bits are the same every time. inner is N.
template <typename T> kernel void embed_bwd(device float* d_table [[buffer(0)]], device const T* d_out [[buffer(1)]],
                                            device const int* ids [[buffer(2)]], constant RowArgs& g [[buffer(3)]],
                                            uint n [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    const int id = ids[n];
    if (id < 0 || ulong(id) >= g.rows) return;
    float earlier = 0.0f;
    for (uint m = tid; m < n; m += nsg * 32) earlier += ids[m] == id ? 1.0f : 0.0f;
    if (group_sum(earlier, part, lane, sg, nsg) > 0.0f) return;
    for (uint m = n; m < g.inner; ++m) {
        if (ids[m] != id) continue;
        for (ulong i = tid; i < g.cols; i += nsg * 32) d_table[id * g.cols + i] += g.scale * float(d_out[m * g.cols + i]);
    }
}
FOR_FLOATS(embed_bwd)
