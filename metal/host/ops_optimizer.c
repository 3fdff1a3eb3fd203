// The launches of the gradient norm, the clip factor and the optimisers. Parameters, gradients and moments are f32 or bytes.
#include "library.h"

enum { MOST_PARTS = 1024 };
static uint64_t parts_of(uint64_t n) {
  const uint64_t wanted = groups_of(n, 2048);
  return wanted < MOST_PARTS ? wanted : MOST_PARTS;
}

OP(sum_squares, 2, OUT(out), NEED(g)) {
  (void)a;
  if (t[1].numel == 0) return US_OK;
  const uint64_t parts = parts_of(t[1].numel);
  const struct ten part = {.slot = room_for(SCRATCH, MOST_PARTS * sizeof(float))};
  if (!part.slot) return US_MEMORY;
  struct EachArgs args = {.n = t[1].numel, .factor = 1};
  struct call c = {
    .kernel = "square_parts", .suffix = NO_SUFFIX, .buffers = {&t[1], &part}, .count = 2, .args = &args,
    .args_bytes = sizeof args, .threads = 256, .grid = {parts}, .work = 30.0 * 4 * (double)t[1].numel,
  };
  const int32_t status = launch(&c);
  if (status != US_OK) return status;
  args.n = parts;
  c.kernel = "add_parts", c.buffers[0] = &part, c.buffers[1] = &t[0], c.grid[0] = 1, c.work = 0;
  return launch(&c);
}

OP(clip_factor, 2, OUT(hyper), NEED(sum_sq)) {
  return each((struct call){.kernel = "clip_factor", .suffix = NO_SUFFIX, .buffers = {&t[1], &t[0]}, .count = 2}, 1, 1,
              (struct EachArgs){.factor = a->max_norm});
}

OP(adamw, 5, OUT(p), NEED(g), OUT(m), OUT(v), NEED(hyper)) {
  (void)a;
  return each((struct call){.kernel = "adamw", .suffix = NO_SUFFIX, .buffers = {&t[0], &t[1], &t[2], &t[3], &t[4]}, .count = 5},
              t[0].numel, 1, (struct EachArgs){0});
}

OP(sgd, 4, OUT(p), NEED(g), MAYBE_OUT(m), NEED(hyper)) {
  (void)a;
  return each((struct call){.kernel = "sgd", .suffix = NO_SUFFIX, .fc = {.optional = t[2].slot != 0},
                            .buffers = {&t[0], &t[1], &t[2], &t[3]}, .count = 4}, t[0].numel, 1, (struct EachArgs){0});
}

OP(lion, 4, OUT(p), NEED(g), OUT(m), NEED(hyper)) {
  (void)a;
  return each((struct call){.kernel = "lion", .suffix = NO_SUFFIX, .buffers = {&t[0], &t[1], &t[2], &t[3]}, .count = 4},
              t[0].numel, 1, (struct EachArgs){0});
}

OP(adamw8, 7, OUT(p), NEED(g), OUT(m), OUT(v), OUT(absmax), NEED(codes), NEED(hyper)) {
  (void)a;
  if (t[0].numel % 256) return fail(US_INVALID, "Cannot run adamw8 on %u elements: it must be a multiple of 256", t[0].numel);
  return each((struct call){.kernel = "adamw8", .suffix = NO_SUFFIX,
                            .buffers = {&t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6]}, .count = 7},
              t[0].numel, 1, (struct EachArgs){0});
}

OP(adafactor, 5, OUT(p), NEED(g), MAYBE_OUT(row), OUT(col), NEED(hyper)) {
  (void)a;
  const struct ten *p = &t[0], *g = &t[1], *row = &t[2], *col = &t[3], *hyper = &t[4];
  if (p->numel == 0) return US_OK;
  const bool split = row->slot != 0;
  const uint64_t O = split ? row->numel : 1, I = p->numel / O, parts = parts_of(p->numel);
  const struct ten room = {.slot = room_for(SCRATCH, (MOST_PARTS + 2) * sizeof(float))};
  struct ten sum = room, list = room;
  sum.offset = 4, list.offset = 8;
  if (!room.slot) return US_MEMORY;
  const struct RowArgs shape = {.rows = O, .cols = I};
  int32_t status = US_OK;
  if (split) {
    status = each_row((struct call){.kernel = "adafactor_row", .suffix = NO_SUFFIX, .buffers = {row, g, hyper}, .count = 3}, O, shape);
  }
  struct EachArgs args = {.n = O, .factor = 1.0f / (float)O};
  struct call join = {.kernel = "add_parts", .suffix = NO_SUFFIX, .fc = {.kind = 1}, .buffers = {row, &room}, .count = 2,
                      .args = &args, .args_bytes = sizeof args, .threads = 256, .grid = {1}};
  const struct call columns = {.kernel = "adafactor_col", .suffix = NO_SUFFIX, .buffers = {col, g, hyper}, .count = 3,
                               .args = &shape, .args_bytes = sizeof shape, .threads = 256, .grid = {groups_of(I, 256)},
                               .work = 120.0 * (double)p->numel};
  if (status == US_OK && split) status = launch(&join);
  if (status == US_OK) status = launch(&columns);
  args = (struct EachArgs){.n = p->numel, .cols = I};
  const struct call squares = {.kernel = "adafactor_parts", .suffix = NO_SUFFIX, .fc = {.optional = split},
                               .buffers = {&room, g, row, col, hyper}, .count = 5, .args = &args, .args_bytes = sizeof args,
                               .threads = 256, .grid = {parts}, .work = 240.0 * (double)p->numel};
  if (status == US_OK) status = launch(&squares);
  args = (struct EachArgs){.n = parts, .factor = 1};
  join.buffers[0] = &list, join.buffers[1] = &sum;
  if (status == US_OK) status = launch(&join);
  if (status != US_OK) return status;
  return each((struct call){.kernel = "adafactor", .suffix = NO_SUFFIX, .fc = {.optional = split},
                            .buffers = {p, g, row, col, hyper, &room}, .count = 6}, p->numel, 1, (struct EachArgs){.cols = I});
}
