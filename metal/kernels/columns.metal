// Sums down the columns of [N,D]: col_sum, col_dot, and the norm's dw and db. A threadgroup has 32 columns, its simdgroups
// take every eighth row; the eight sums are added in order: the same bits every time, one read of the input.
enum { PLAIN = 0, DOT = 1, NORMED = 2 };

// out[j] += sum over n of a, a * b, or a * (b - mean) * rstd; KIND says which
template <typename T> kernel void columns(device float* out [[buffer(0)]], device const T* a [[buffer(1)]],
                                          device const T* b [[buffer(2)]], device const float2* stat [[buffer(3)]],
                                          constant RowArgs& g [[buffer(4)]],
                                          uint block [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[8][32];
    const ulong j = ulong(block) * 32 + lane;
    float s = 0.0f;
    if (j < g.cols) {
        for (ulong n = sg; n < g.rows; n += 8) {
            float v = float(a[n * g.cols + j]);
            if (KIND == DOT) v *= float(b[n * g.cols + j]);
            if (KIND == NORMED) v *= (float(b[n * g.cols + j]) - stat[n].x) * stat[n].y;
            s += v;
        }
    }
    part[sg][lane] = s;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (sg == 0 && j < g.cols) {
        for (uint i = 1; i < 8; ++i) s += part[i][lane];
        out[j] += s;
    }
}
FOR_FLOATS(columns)
