// Descriptors of the copy engine (TMA): a box of a row-major 16-bit tensor, 128-byte swizzle, zeros outside.
#pragma once
#include <cuda.h>
#include <stdint.h>

namespace us {

/** [rows, cols] in boxes of [box_rows, 64]; false when the driver refuses. */
bool map_2d(CUtensorMap* map, const void* p, uint64_t rows, uint64_t cols, uint32_t box_rows);
/** The same in boxes of box_cols columns, which are 16, 32 or 64: the swizzle is as wide as the box. */
bool map_box(CUtensorMap* map, const void* p, uint64_t rows, uint64_t cols, uint32_t box_rows, uint32_t box_cols);
/** [n, heads, d] seen as (d, heads, n), in boxes of box_cols (as above) features of one head of box_rows tokens. */
bool map_heads(CUtensorMap* map, const void* p, uint64_t n, uint64_t heads, uint64_t d, uint32_t box_rows, uint32_t box_cols = 64);

}  // namespace us
