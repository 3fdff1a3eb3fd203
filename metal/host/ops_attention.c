// The launches of attention, its backward, and attention over caches.
#include "library.h"

_Static_assert(sizeof(struct AttnArgs) == 32 && sizeof(struct CacheArgs) == 40, "as in Metal");

// The kernel for heads of d: their size rounded up.
static const char* sized(const char* const names[4], uint64_t d) { return names[d <= 32 ? 0 : d <= 64 ? 1 : d <= 128 ? 2 : 3]; }
static uint32_t rounded(uint64_t d) { return d <= 32 ? 32 : d <= 64 ? 64 : d <= 128 ? 128 : 256; }

static int32_t check_head(const char* op, uint64_t d) {
  return d <= 256 ? US_OK : fail(US_UNSUPPORTED, "Cannot run %s on Metal: heads of %u features; at most 256", op, d);
}

static struct AttnArgs args_of(const struct ten* q, const struct ten* k, const struct ten* cu, float scale, uint32_t window,
                               float softcap) {
  return (struct AttnArgs){(u32)q->shape[0], (u32)q->shape[1], (u32)k->shape[1], (u32)q->shape[2], (u32)cu->numel - 1,
                           window, scale, softcap};
}

// A launch over tiles of rows and heads; FLOP of one product of all scores with d features is 2 N N/2 H d.
static int32_t launch_tiles(struct call c, const struct AttnArgs* g, uint32_t max_len, uint32_t heads, uint32_t products) {
  const uint32_t bytes = rounded(g->d) * (c.suffix == US_F32 ? 4 : 2), rows = ATTN_ROWS(bytes);
  c.args = g, c.args_bytes = sizeof *g, c.threads = rows * 4, c.grid[0] = groups_of(g->N, rows), c.grid[1] = heads;
  c.work = (double)products * g->N * (double)max_len * g->H * g->d;
  return launch(&c);
}

static bool wide(const struct ten* t, uint32_t count, uint64_t d) {
  for (uint32_t i = 0; i < count; i++) {
    if (!by_four(&t[i])) return false;
  }
  return d % 4 == 0;
}

OP(attention, 6, OUT(out), OUT(lse), NEED(q), NEED(k), NEED(v), NEED(cu)) {
  static const char* const names[] = {"attention_32", "attention_64", "attention_128", "attention_256"};
  ONE_TYPE("attention", &t[0], &t[2], &t[3], &t[4]);
  const struct AttnArgs g = args_of(&t[2], &t[3], &t[5], a->scale, a->window, a->softcap);
  const int32_t status = check_head("attention", g.d);
  if (status != US_OK || t[2].numel == 0) return status;
  return launch_tiles((struct call){.kernel = sized(names, g.d), .suffix = t[2].dtype, .fc = {.wide = wide(&t[2], 3, g.d)},
                                    .buffers = {&t[2], &t[3], &t[4], &t[5], &t[0], &t[1]}, .count = 6},
                      &g, a->max_len, g.H, 2);
}

OP(attention_bwd, 10, OUT(dq), OUT(dk), OUT(dv), NEED(d_out), NEED(q), NEED(k), NEED(v), NEED(out), NEED(lse), NEED(cu)) {
  static const char* const dq[] = {"attention_dq_32", "attention_dq_64", "attention_dq_128", "attention_dq_256"};
  static const char* const sums[] = {"attention_delta_32", "attention_delta_64", "attention_delta_128", "attention_delta_256"};
  static const char* const dkv[] = {"attention_dkv_32", "attention_dkv_64", "attention_dkv_128", "attention_dkv_256"};
  ONE_TYPE("attention_bwd", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
  const struct AttnArgs g = args_of(&t[4], &t[5], &t[9], a->scale, a->window, a->softcap);
  int32_t status = check_head("attention_bwd", g.d);
  if (status != US_OK || t[4].numel == 0) return status;
  const uint64_t rows = (uint64_t)g.N * g.H;
  const struct ten delta = {.slot = room_for(SCRATCH, rows * sizeof(float))};
  if (!delta.slot) return US_MEMORY;
  const uint32_t type = t[4].dtype;
  const bool pair = by_four(&t[7]) && by_four(&t[3]) && g.d % 4 == 0;
  status = launch_tiles((struct call){.kernel = sized(sums, g.d), .suffix = type, .fc = {.wide = pair},
                                      .buffers = {&t[7], &t[3], &delta}, .count = 3}, &g, 1, g.H, 2);
  const bool four = wide(&t[3], 4, g.d);
  if (status == US_OK) {
    status = launch_tiles((struct call){.kernel = sized(dq, g.d), .suffix = type, .fc = {.wide = four},
                                        .buffers = {&t[4], &t[5], &t[6], &t[3], &t[8], &delta, &t[9], &t[0]}, .count = 8},
                          &g, a->max_len, g.H, 3);
  }
  if (status == US_OK) {
    status = launch_tiles((struct call){.kernel = sized(dkv, g.d), .suffix = type, .fc = {.wide = four},
                                        .buffers = {&t[4], &t[5], &t[6], &t[3], &t[8], &delta, &t[9], &t[1], &t[2]}, .count = 9},
                          &g, a->max_len, g.K, 4);
  }
  return status;
}

static struct CacheArgs cache_args(const struct ten* kc, uint64_t N, uint64_t H) {
  return (struct CacheArgs){.N = (u32)N, .H = (u32)H, .K = (u32)kc->shape[2], .d = (u32)kc->shape[3], .S = (u32)kc->shape[0],
                            .L = (u32)kc->shape[1]};
}

OP(cache_write, 6, OUT(kc), OUT(vc), NEED(k), NEED(v), NEED(seq), NEED(pos)) {
  (void)a;
  ONE_TYPE("cache_write", &t[0], &t[1], &t[2], &t[3]);
  const struct CacheArgs g = cache_args(&t[0], t[2].shape[0], t[2].shape[1]);
  const struct call c = {
    .kernel = "cache_write", .suffix = t[2].dtype, .buffers = {&t[2], &t[3], &t[4], &t[5], &t[0], &t[1]}, .count = 6,
    .args = &g, .args_bytes = sizeof g, .threads = 256, .grid = {g.N}, .work = 30.0 * 16 * (double)t[2].numel,
  };
  return t[2].numel ? launch(&c) : US_OK;
}

OP(attention_cached, 6, OUT(out), NEED(q), NEED(kc), NEED(vc), NEED(seq), NEED(pos)) {
  ONE_TYPE("attention_cached", &t[0], &t[1], &t[2], &t[3]);
  struct CacheArgs g = cache_args(&t[2], t[1].shape[0], t[1].shape[1]);
  g.window = a->window, g.scale = a->scale, g.softcap = a->softcap;
  const int32_t status = check_head("attention_cached", g.d);
  if (status != US_OK || t[1].numel == 0) return status;
  const struct call c = {
    .kernel = "attention_cached", .suffix = t[1].dtype, .buffers = {&t[1], &t[2], &t[3], &t[4], &t[5], &t[0]}, .count = 6,
    .args = &g, .args_bytes = sizeof g, .threads = g.L <= 64 ? 64 : 256, .grid = {(uint64_t)g.N * g.H},
    .work = 30.0 * 8 * (double)g.N * g.H * g.L * g.d,
  };
  return launch(&c);
}
