// h = act(gate) * up, and its backward, which writes h again so that no pass needs to save it. Bound by memory.
// SiLU; GELU in its erf form (Hendrycks & Gimpel 2016) and its tanh form. KIND is the activation, OPTIONAL: up is there.

// erf x for |x| < 1, and erfc a for a >= 1: polynomials of S. Moshier's Cephes library (netlib.org/cephes,
// single/ndtrf.c), within 2e-7 relative. MSL has no erf.
inline float erf_small(float x) {
    const float z = x * x;
    float p = fma(7.853861353153693e-5f, z, -8.010193625184903e-4f);
    p = fma(p, z, 5.188327685732524e-3f);
    p = fma(p, z, -2.685381193529856e-2f);
    p = fma(p, z, 1.128358514861418e-1f);
    p = fma(p, z, -3.761262582423300e-1f);
    return x * fma(p, z, 1.128379165726710f);
}
inline float erfc_big(float a) {
    const float q = 1.0f / a, y = q * q;
    float p;
    if (a < 2.0f) {
        p = fma(2.326819970068386e-2f, y, -1.387039388740657e-1f);
        p = fma(p, y, 3.687424674597105e-1f);
        p = fma(p, y, -5.824733027278666e-1f);
        p = fma(p, y, 6.210004621745983e-1f);
        p = fma(p, y, -4.944515323274145e-1f);
        p = fma(p, y, 3.404879937665872e-1f);
        p = fma(p, y, -2.741127028184656e-1f);
        p = fma(p, y, 5.638259427386472e-1f);
    } else {
        p = fma(-1.047766399936249e+1f, y, 1.297719955372516e+1f);
        p = fma(p, y, -7.495518717768503f);
        p = fma(p, y, 2.921019019210786f);
        p = fma(p, y, -1.015265279202700f);
        p = fma(p, y, 4.218463358204948e-1f);
        p = fma(p, y, -2.820767439740514e-1f);
        p = fma(p, y, 5.641895067754075e-1f);
    }
    return exp(-a * a) * q * p;
}
// The standard normal distribution function, without cancellation on either side.
inline float normal_cdf(float x) {
    const float t = x * 0.7071067811865476f, a = fabs(t);
    if (a < 1.0f) return 0.5f + 0.5f * erf_small(t);
    const float tail = 0.5f * erfc_big(a);
    return t < 0.0f ? tail : 1.0f - tail;
}

// (act(x), act'(x))
inline float2 activate(float x) {
    if (KIND == SILU) {
        const float s = 1.0f / (1.0f + exp(-x));
        return float2(x * s, s * (1.0f + x * (1.0f - s)));
    }
    if (KIND == GELU) {
        const float c = normal_cdf(x);
        return float2(x * c, c + x * 0.3989422804014327f * exp(-0.5f * x * x));
    }
    const float C = 0.7978845608028654f /* sqrt(2/pi) */, A = 0.044715f;
    const float t = precise::tanh(C * (x + A * x * x * x));
    return float2(0.5f * x * (1.0f + t),
                  0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * C * (1.0f + 3.0f * A * x * x));
}

template <typename T> kernel void glu(device const T* gate [[buffer(0)]], device const T* up [[buffer(1)]],
                                      device T* h [[buffer(2)]], constant EachArgs& g [[buffer(3)]],
                                      uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i >= g.n) return;
    float4 v = load4(gate, i, g.n);
    for (uint j = 0; j < 4; ++j) v[j] = activate(v[j]).x;
    if (OPTIONAL) v *= load4(up, i, g.n);
    store4(h, i, g.n, v);
}
FOR_FLOATS(glu)

// d_gate may be gate's memory and d_up up's: a thread has read its elements before it writes them
template <typename T> kernel void glu_bwd(device const T* gate [[buffer(0)]], device const T* up [[buffer(1)]],
                                          device const T* dh [[buffer(2)]], device T* h [[buffer(3)]],
                                          device T* d_gate [[buffer(4)]], device T* d_up [[buffer(5)]],
                                          constant EachArgs& g [[buffer(6)]], uint at [[thread_position_in_grid]]) {
    const ulong i = ulong(at) * 4;
    if (i >= g.n) return;
    const float4 x = load4(gate, i, g.n), d = load4(dh, i, g.n);
    float4 u = float4(1.0f), y, slope;
    if (OPTIONAL) u = load4(up, i, g.n);
    for (uint j = 0; j < 4; ++j) {
        const float2 a = activate(x[j]);
        y[j] = a.x, slope[j] = a.y;
    }
    store4(h, i, g.n, y * u);
    store4(d_gate, i, g.n, d * slope * u);
    if (OPTIONAL) store4(d_up, i, g.n, d * y);
}
FOR_FLOATS(glu_bwd)
