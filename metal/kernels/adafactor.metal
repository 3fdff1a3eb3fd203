// Adafactor without first moment (Shazeer & Stern 2018, algorithms 4 and 5), over p and g [O,I]: row [O] and col [I] are
// running means of squares, u = clip g / sqrt(row col / mean(row)), divided by max(1, rms(u) / d); OPTIONAL: there is a row,
// else col holds the moment whole. hyper: lr, -, b2, eps, weight decay, d, -, clip. room: mean(row), sum u^2, parts of it.
inline float square(float x, device const float* hyper) { return hyper[7] * x * (hyper[7] * x) + hyper[3]; }

// row[o] = b2 row[o] + (1-b2) mean over i; a threadgroup a row
kernel void adafactor_row(device float* row [[buffer(0)]], device const float* grad [[buffer(1)]],
                          device const float* hyper [[buffer(2)]], constant RowArgs& g [[buffer(3)]],
                          uint o [[threadgroup_position_in_grid]], TEAM) {
    threadgroup float part[32];
    float s = 0.0f;
    for (ulong i = tid; i < g.cols; i += nsg * 32) s += square(grad[o * g.cols + i], hyper);
    s = group_sum(s, part, lane, sg, nsg) / float(g.cols);
    if (tid == 0) row[o] = hyper[2] * row[o] + (1.0f - hyper[2]) * s;
}

// col[i] = b2 col[i] + (1-b2) mean over the rows, of which there is one where col holds the moment whole
kernel void adafactor_col(device float* col [[buffer(0)]], device const float* grad [[buffer(1)]],
                          device const float* hyper [[buffer(2)]], constant RowArgs& g [[buffer(3)]],
                          uint i [[thread_position_in_grid]]) {
    if (i >= g.cols) return;
    float s = 0.0f;
    for (ulong o = 0; o < g.rows; ++o) s += square(grad[o * g.cols + i], hyper);
    col[i] = hyper[2] * col[i] + (1.0f - hyper[2]) * s / float(g.rows);
}

inline float update_of(ulong n, device const float* grad, device const float* row, device const float* col,
                       device const float* hyper, device const float* room, ulong cols) {
    const float moment = OPTIONAL ? row[n / cols] / room[0] * col[n % cols] : col[n];
    return hyper[7] * grad[n] / sqrt(moment);
}

// room[2 + group] = sum of u^2 over its share
kernel void adafactor_parts(device float* room [[buffer(0)]], device const float* grad [[buffer(1)]],
                            device const float* row [[buffer(2)]], device const float* col [[buffer(3)]],
                            device const float* hyper [[buffer(4)]], constant EachArgs& g [[buffer(5)]],
                            uint group [[threadgroup_position_in_grid]], uint groups [[threadgroups_per_grid]], TEAM) {
    threadgroup float part[32];
    float s = 0.0f;
    for (ulong n = ulong(group) * 256 + tid; n < g.n; n += ulong(groups) * 256) {
        const float u = update_of(n, grad, row, col, hyper, room, g.cols);
        s = fma(u, u, s);
    }
    s = group_sum(s, part, lane, sg, nsg);
    if (tid == 0) room[2 + group] = s;
}

kernel void adafactor(device float* p [[buffer(0)]], device const float* grad [[buffer(1)]],
                      device const float* row [[buffer(2)]], device const float* col [[buffer(3)]],
                      device const float* hyper [[buffer(4)]], device const float* room [[buffer(5)]],
                      constant EachArgs& g [[buffer(6)]], uint n [[thread_position_in_grid]]) {
    if (n >= g.n) return;
    const float factor = max(1.0f, sqrt(room[1] / float(g.n)) / hyper[5]);
    const float u = update_of(n, grad, row, col, hyper, room, g.cols);
    p[n] = p[n] * (1.0f - hyper[0] * hyper[4]) - hyper[0] * u / factor;
}
