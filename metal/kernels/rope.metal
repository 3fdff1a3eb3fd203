// Rotary position embedding (Su et al. 2021), rotate-half layout, in place: feature i pairs with i + half.
// (a, b) -> factor * (a cos - b sin, b cos + a sin), the angle sign * pos * freq. A thread has one pair of one token and
// turns it in every head, so that sine and cosine are computed once. Moves 2 N heads rotary elements, bound by memory.
template <typename T> kernel void rope(device T* x [[buffer(0)]], device const int* pos [[buffer(1)]],
                                       device const float* freqs [[buffer(2)]], constant RopeArgs& g [[buffer(3)]],
                                       uint at [[thread_position_in_grid]]) {
    const uint n = at / g.half_size, i = at % g.half_size;
    if (n >= g.tokens) return;
    const float angle = float(pos[n]) * freqs[i];
    const float c = precise::cos(angle) * g.factor, s = precise::sin(angle) * g.factor * g.sign;
    for (uint h = 0; h < g.heads; ++h) {
        device T* p = x + (ulong(n) * g.heads + h) * g.d + i;
        const float a = float(p[0]), b = float(p[g.half_size]);
        p[0] = T(a * c - b * s);
        p[g.half_size] = T(b * c + a * s);
    }
}
FOR_FLOATS(rope)
