// us_matmul: picks the kernel. Few rows against a weight's rows: gemm_rows, which reads the weight once. Otherwise tiles of
// 64 x 64, or of 32 x 32 where those would leave most of the GPU idle or of the tile empty. A product of few such tiles and
// a long K (x A^T and dy B of an adapter) is split along K, so that every core has work. A product too long for one command
// buffer is launched in pieces of rows.
#include "library.h"

_Static_assert(sizeof(struct GemmArgs) == 56, "as in Metal");

// ENOUGH: threadgroups that keep the largest GPU (40 cores) busy. SPAN: elements of K that are worth a threadgroup.
enum { FEW_ROWS = 8, FEWEST_TILES = 16, ENOUGH = 128, SPAN = 512, MOST_SPLITS = 16 };
static const double LONGEST = 1e12;  // FLOP of one launch, about half a second on the smallest M1

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

// Partial results into scratch memory, then their sum.
static int32_t split(struct call c, const struct GemmArgs* g, uint64_t splits, const struct ten* t) {
  const uint64_t sums = splits * g->m * g->n * sizeof(float);
  const struct ten parts = {.slot = room_for(SCRATCH, sums), .offset = 0, .bytes = sums, .dtype = US_F32};
  if (!parts.slot) return US_MEMORY;
  struct GemmArgs part = *g, sum = *g;
  part.span = (uint32_t)((g->k + splits - 1) / splits + 255) / 256 * 256, part.alpha = 1, part.beta = 0;
  sum.splits = groups_of(g->k, part.span);
  struct call add = c;
  c.buffers[2] = &parts, c.args = &part, c.fc.out = US_F32, c.fc.optional = false;
  c.grid[1] = groups_of(g->m, 32), c.grid[2] = sum.splits, c.work = 2.0 * (double)g->m * (double)g->n * (double)g->k + 30.0 * (double)t[2].bytes;
  const int32_t status = launch(&c);
  if (status != US_OK) return status;
  add.kernel = "gemm_sum", add.args = &sum, add.threads = 256, add.grid[0] = groups_of(g->m * g->n, 256), add.count = 3;
  add.fc = (struct constants){.out = t[0].dtype, .optional = t[3].slot != 0};
  add.buffers[0] = &parts, add.buffers[1] = &t[0], add.buffers[2] = &t[3], add.work = 30.0 * (double)sums;
  return launch(&add);
}

static int32_t tiles(struct call c, struct GemmArgs* g, const struct ten* t) {
  const bool small = g->m <= 32 || g->n <= 32 || (uint64_t)groups_of(g->m, 64) * groups_of(g->n, 64) < FEWEST_TILES;
  const uint32_t tile = small ? 32 : 64;
  c.kernel = small ? "gemm_32" : "gemm_64", c.threads = 128, c.grid[0] = groups_of(g->n, tile);
  const uint64_t groups = (uint64_t)groups_of(g->m, 32) * c.grid[0];
  const uint64_t splits = small ? smaller(smaller(g->k / SPAN, ENOUGH / groups), MOST_SPLITS) : 1;
  if (splits > 1) return split(c, g, splits, t);
  g->span = (uint32_t)((g->k + 255) / 256 * 256);
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
           .wide = by_four(x) && x->cols % 4 == 0, .wide_b = by_four(w) && w->cols % 4 == 0,
           .optional = bias->slot != 0},
  };
  if (a->trans_a || !a->trans_b || g.m > FEW_ROWS) return tiles(l, &g, t);
  l.kernel = "gemm_rows", l.fc.kind = (uint32_t)g.m, l.threads = 128, l.grid[0] = groups_of(g.n, 16);
  l.work = 30.0 * (double)w->bytes + 2.0 * (double)g.m * (double)w->numel;
  return launch(&l);
}
