// The driver's encoder of TMA descriptors, looked up at run time: the library links no driver.
#include "../kernels/tensor_map.h"

#include <cuda_runtime.h>

namespace us {

namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

Encode find_encoder() {
  void* f = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
  return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(f) : nullptr;
}

bool encode(CUtensorMap* map, const void* p, uint32_t rank, const cuuint64_t* sizes, const cuuint64_t* strides,
            const cuuint32_t* box, CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static const Encode f = find_encoder();
  const cuuint32_t ones[3] = {1, 1, 1};
  // bf16 and f16 move alike: the type matters for conversions only, and zeros fill the outside.
  return f && f(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void*>(p), sizes, strides, box, ones,
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

CUtensorMapSwizzle as_wide_as(uint32_t box_cols) {
  return box_cols == 16 ? CU_TENSOR_MAP_SWIZZLE_32B : box_cols == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B;
}

}  // namespace

bool map_2d(CUtensorMap* map, const void* p, uint64_t rows, uint64_t cols, uint32_t box_rows) {
  const cuuint64_t sizes[2] = {cols, rows}, strides[1] = {cols * 2};
  const cuuint32_t box[2] = {64, box_rows};
  return encode(map, p, 2, sizes, strides, box);
}

bool map_box(CUtensorMap* map, const void* p, uint64_t rows, uint64_t cols, uint32_t box_rows, uint32_t box_cols) {
  const cuuint64_t sizes[2] = {cols, rows}, strides[1] = {cols * 2};
  const cuuint32_t box[2] = {box_cols, box_rows};
  return encode(map, p, 2, sizes, strides, box, as_wide_as(box_cols));
}

bool map_heads(CUtensorMap* map, const void* p, uint64_t n, uint64_t heads, uint64_t d, uint32_t box_rows, uint32_t box_cols) {
  const cuuint64_t sizes[3] = {d, heads, n}, strides[2] = {d * 2, heads * d * 2};
  const cuuint32_t box[3] = {box_cols, 1, box_rows};
  return encode(map, p, 3, sizes, strides, box, as_wide_as(box_cols));
}

}  // namespace us
