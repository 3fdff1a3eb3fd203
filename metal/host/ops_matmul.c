// us_matmul: picks the kernel. Few rows against a weight's rows: gemm_rows, which reads the weight once. Otherwise tiles of
// 64 x 64, or of 32 x 32 where those would leave most of the GPU idle or of the tile empty. A product too long for one
// command buffer is launched in pieces of rows.
#include "library.h"

_Static_assert(sizeof(struct GemmArgs) == 48, "as in Metal");

enum { FEW_ROWS = 8, FEWEST_TILES = 16 };
static const double LONGEST = 1e12;  // FLOP of one launch, about half a second on the smallest M1

static int32_t tiles(struct call c, struct GemmArgs* g, const struct ten* t) {
  const bool small = g->m <= 32 || g->n <= 32 || (uint64_t)groups_of(g->m, 64) * groups_of(g->n, 64) < FEWEST_TILES;
  const uint32_t tile = small ? 32 : 64;
  c.kernel = small ? "gemm_32" : "gemm_64", c.threads = 128, c.grid[0] = groups_of(g->n, tile);
  const double row = 2.0 * (double)g->n * (double)g->k, most = LONGEST / (row > 1 ? row : 1) / tile;
  const uint64_t rows = (uint64_t)(most < 1 ? 1 : most > 1e9 ? 1e9 : most) * tile;
  for (; g->first_row < g->m; g->first_row += rows) {
    const uint64_t left = g->m - g->first_row, now = left < rows ? left : rows;
    c.grid[1] = groups_of(now, tile), c.work = row * (double)now + 30.0 * (double)t[2].bytes;
    const int32_t status = launch(&c);
    if (status != US_OK) return status;
  }
  return US_OK;
}

OP(matmul, 4, OUT(c), NEED(a), NEED(b), MAYBE(bias)) {
  const struct ten *c = &t[0], *x = &t[1], *w = &t[2], *bias = &t[3];
  ONE_TYPE("matmul", x);
  if (c->dtype != x->dtype && c->dtype != US_F32) {
    return fail(US_UNSUPPORTED, "Cannot run matmul on Metal: c is of element type %u and a of %u", (uint64_t)c->dtype,
                (uint64_t)x->dtype);
  }
  if (!is_float(w->dtype) && !is_quant(w->dtype) && w->dtype != US_FP8_E4M3) {
    return fail(US_UNSUPPORTED, "Cannot run matmul on Metal: no kernel for weights of element type %u", (uint64_t)w->dtype);
  }
  if (bias->slot) ONE_TYPE("matmul", bias);
  struct GemmArgs g = {.m = c->rows, .n = c->cols, .k = a->trans_a ? x->rows : x->cols, .alpha = a->alpha, .beta = a->beta,
                       .bias_type = bias->dtype};
  if (g.m == 0 || g.n == 0) return US_OK;
  struct call l = {
    .suffix = x->dtype, .buffers = {x, w, c, bias}, .count = 4, .args = &g, .args_bytes = sizeof g,
    .fc = {.type = w->dtype, .out = c->dtype, .trans_a = a->trans_a != 0, .trans_b = a->trans_b != 0,
           .wide = aligned(x, 16) && x->cols % 4 == 0, .wide_b = aligned(w, 16) && w->cols % 4 == 0,
           .optional = bias->slot != 0},
  };
  if (a->trans_a || !a->trans_b || g.m > FEW_ROWS) return tiles(l, &g, t);
  l.kernel = "gemm_rows", l.fc.kind = (uint32_t)g.m, l.threads = 128, l.grid[0] = groups_of(g.n, 16);
  l.work = 30.0 * (double)w->bytes + 2.0 * (double)g.m * (double)w->numel;
  return launch(&l);
}
