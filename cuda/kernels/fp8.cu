// Quantisation to e4m3: the base's weights at load (a block of 128 x 128 a scale), activations before each product (128 elements
// of a row a scale; both as in the DeepSeek-V3 report, section 3.3). y = e4m3(x * (448 / amax)), rounded to nearest even and
// saturated, in f32; src/formats/fp8.ts gives the same bits. Memory-bound: activations are read in 16 bits and written in 8.
#include "fp8.h"

#include "../host/kernels.h"
#include "decode.cuh"
#include "e4m3.cuh"

namespace us {
namespace {

struct Inputs { Rounded list[MAX_SEGMENTS]; };

constexpr int SIDE = 128, BLOCK_THREADS = 256, ROW_THREADS = 256;

/** Sixteen threads a scale: half a warp, all inside or all outside, since K is a multiple of 128. */
template <class T> __global__ void __launch_bounds__(ROW_THREADS) rows_kernel(Inputs in, size_t M) {
  const Rounded& r = in.list[blockIdx.y];
  const size_t i = (static_cast<size_t>(blockIdx.x) * ROW_THREADS + threadIdx.x) * 8;
  if (i >= M * r.K) return;
  float v[8], best = 0;
  load<8>(static_cast<const T*>(r.from) + i, v);
#pragma unroll
  for (int j = 0; j < 8; j++) best = fmaxf(best, fabsf(v[j]));
#pragma unroll
  for (int o = 8; o; o >>= 1) best = fmaxf(best, __shfl_xor_sync(0xffffu << (threadIdx.x & 16), best, o));
  *reinterpret_cast<uint2*>(r.to + i) = eight_e4m3(v, inverse_of(best));
  if (threadIdx.x % 16 == 0) r.scale[i % r.K / SIDE * scale_rows(M) + i / r.K] = scale_of(best);
}

/** One block of 128 x 128: its largest value, then the values twice, the second time transposed through shared memory. */
__global__ void __launch_bounds__(BLOCK_THREADS)
weight_kernel(uint8_t* out, float* scales, const void* x, int dtype, size_t R, size_t C, size_t from) {
  __shared__ uint8_t tile[SIDE][SIDE + 4];
  const size_t r0 = static_cast<size_t>(blockIdx.y) * SIDE, c0 = static_cast<size_t>(blockIdx.x) * SIDE;
  float best = 0, v[8];
  for (int e = threadIdx.x; e < SIDE * SIDE / 8; e += BLOCK_THREADS) {
    load_any<8>(x, dtype, (r0 + e / 16) * C + c0 + e % 16 * 8, v);
#pragma unroll
    for (int i = 0; i < 8; i++) best = fmaxf(best, fabsf(v[i]));
  }
  best = block_max<BLOCK_THREADS>(best);
  const float by = inverse_of(best);
  for (int e = threadIdx.x; e < SIDE * SIDE / 8; e += BLOCK_THREADS) {
    const int r = e / 16, c = e % 16 * 8;
    load_any<8>(x, dtype, (r0 + r) * C + c0 + c, v);
    const uint2 q = eight_e4m3(v, by);
    *reinterpret_cast<uint2*>(out + (from + r0 + r) * C + c0 + c) = q;
    *reinterpret_cast<uint32_t*>(&tile[r][c]) = q.x, *reinterpret_cast<uint32_t*>(&tile[r][c + 4]) = q.y;
  }
  __syncthreads();
  uint8_t* across = out + R * C;
  for (int e = threadIdx.x; e < SIDE * SIDE / 4; e += BLOCK_THREADS) {
    const int c = e / 32, r = e % 32 * 4;
    const uint32_t four = tile[r][c] | tile[r + 1][c] << 8 | tile[r + 2][c] << 16 | static_cast<uint32_t>(tile[r + 3][c]) << 24;
    *reinterpret_cast<uint32_t*>(across + (c0 + c) * R + from + r0 + r) = four;
  }
  if (threadIdx.x == 0) scales[(from + r0) / SIDE * (C / SIDE) + c0 / SIDE] = scale_of(best);
}

template <class T> __global__ void __launch_bounds__(256) back_kernel(T* out, const uint8_t* w, const float* scales, size_t R, size_t C) {
  const size_t i = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
  if (i >= R * C) return;
  const float by = scales[i / C / SIDE * (C / SIDE) + i % C / SIDE];
  float v[8];
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = e4m3(w[i + j]) * by;
  store<8>(out + i, v);
}

const float* scales_of(const void* w, size_t numel) { return reinterpret_cast<const float*>(static_cast<const uint8_t*>(w) + 2 * numel); }

}  // namespace

int quantize_fp8(const Ten& out, const Ten& x, size_t from) {
  const size_t R = out.rows, C = out.cols;
  if (out.dtype != FP8_128 || x.dtype > F16) return unsupported("quantising to e4m3 from element type", x.dtype);
  if (x.cols != C || x.rows % SIDE || from % SIDE || from + x.rows > R || C % SIDE || R % SIDE) {
    return fail(US_INVALID, "Cannot quantise rows %zu to %zu of [%zu,%zu] to e4m3: sizes must be multiples of %d", from,
                from + x.rows, R, C, SIDE);
  }
  if (!aligned16(x.p, out.p)) return fail(US_INVALID, "Cannot quantise to e4m3: the tensors do not start at a multiple of 16");
  if (x.rows == 0) return US_OK;
  weight_kernel<<<dim3(blocks(C, SIDE), blocks(x.rows, SIDE)), BLOCK_THREADS, 0, stream()>>>(
      out.as<uint8_t>(), const_cast<float*>(scales_of(out.p, out.numel)), x.p, x.dtype, R, C, from);
  return launched("quantise a weight");
}

int dequantize_fp8(const Ten& out, const Ten& w) {
  US_FLOAT(out.dtype, T, {
    back_kernel<T><<<blocks(w.numel, 2048), 256, 0, stream()>>>(out.as<T>(), w.as<uint8_t>(), scales_of(w.p, w.numel), w.rows, w.cols);
  });
  return launched("read a weight");
}

Segment fp8_segment(const Gemm& g) {
  const size_t numel = g.N * g.K;
  const uint8_t* w = static_cast<const uint8_t*>(g.b);
  const int across = static_cast<int>((g.trans_b ? g.K : g.N) / SIDE);  // scales of a row of blocks
  Segment s{g.a, g.trans_b ? w : w + numel, g.K, scales_of(w, numel)};
  s.scale_n = g.trans_b ? across : 1, s.scale_k = g.trans_b ? 1 : across;
  return s;
}

int place_rounded(size_t M, Product* products, int count, Rounded* list, int& n) {
  size_t bytes = 0;
  auto each = [&](auto visit) {
    for (int i = 0; i < count; i++)
      for (int j = 0; j < products[i].segments; j++)
        if (products[i].segment[j].b_scale) visit(products[i].segment[j]);
  };
  auto find = [&](const Segment& s) {
    int j = 0;
    while (j < n && (list[j].from != s.a || list[j].K != s.K)) j++;
    return j;
  };
  n = 0;
  each([&](Segment& s) {
    if (find(s) < n) return;
    list[n++] = {s.a, s.K, nullptr, nullptr, false};
    bytes += (M * s.K + scale_rows(M) * (s.K / SIDE) * 4 + 511) / 256 * 256;
  });
  char* room = static_cast<char*>(scratch(SCRATCH_FP8, bytes));
  if (!room) return US_MEMORY;
  for (int j = 0; j < n; j++) {
    list[j].to = reinterpret_cast<uint8_t*>(room), room += (M * list[j].K + 255) / 256 * 256;
    list[j].scale = reinterpret_cast<float*>(room), room += scale_rows(M) * (list[j].K / SIDE) * 4;
  }
  each([&](Segment& s) {
    const Rounded& r = list[find(s)];  // each segment once, so its a is still the input
    s.a_scale = r.scale, s.a = r.to;
  });
  return US_OK;
}

int round_inputs(int dtype, size_t M, const Rounded* list, int count) {
  Inputs in;
  unsigned n = 0;
  for (int j = 0; j < count; j++)
    if (!list[j].done) in.list[n++] = list[j];
  if (n == 0) return US_OK;
  size_t most = 0;
  for (unsigned j = 0; j < n; j++) most = in.list[j].K > most ? in.list[j].K : most;
  const dim3 grid(blocks(M * most, ROW_THREADS * 8), n);
  if (dtype == BF16) rows_kernel<bf16><<<grid, ROW_THREADS, 0, stream()>>>(in, M);
  else rows_kernel<f16><<<grid, ROW_THREADS, 0, stream()>>>(in, M);
  return launched("inputs to 8 bits");
}

}  // namespace us
