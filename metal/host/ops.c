// The operations but matmul, attention and the optimisers: each checks that there is a kernel for its types and launches it.
#include "library.h"

_Static_assert(sizeof(struct LossArgs) == 24 && sizeof(struct RopeArgs) == 24, "as in Metal");

static bool wide(const struct ten* const* list, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    if (list[i] && !by_four(list[i])) return false;
  }
  return true;
}

static int32_t no_kernel(const char* op, uint32_t dtype) {
  return fail(US_UNSUPPORTED, "Cannot run %s on Metal: no kernel for element type %u", op, (uint64_t)dtype);
}
static bool is_weight(uint32_t dtype) { return is_float(dtype) || is_quant(dtype) || dtype == US_FP8_E4M3; }

OP(add, 3, OUT(out), NEED(a), NEED(b)) {
  (void)a;
  ONE_TYPE("add", &t[0], &t[1], &t[2]);
  const struct ten* list[] = {&t[1], &t[2], &t[0]};
  return each((struct call){.kernel = "add", .suffix = t[0].dtype, .fc = {.wide = wide(list, 3)},
                            .buffers = {&t[1], &t[2], &t[0]}, .count = 3}, t[0].numel, 4, (struct EachArgs){0});
}

OP(scale, 2, OUT(out), NEED(x)) {
  ONE_TYPE("scale", &t[0], &t[1]);
  const struct ten* list[] = {&t[1], &t[0]};
  return each((struct call){.kernel = "scale", .suffix = t[0].dtype, .fc = {.wide = wide(list, 2)},
                            .buffers = {&t[1], &t[0]}, .count = 2}, t[0].numel, 4, (struct EachArgs){.factor = a->factor});
}

OP(divide, 3, OUT(out), NEED(a), NEED(b)) {
  (void)a;
  return each((struct call){.kernel = "divide", .suffix = NO_SUFFIX, .buffers = {&t[1], &t[2], &t[0]}, .count = 3},
              t[0].numel, 1, (struct EachArgs){0});
}

OP(scale_cols, 3, OUT(out), NEED(x), NEED(s)) {
  (void)a;
  ONE_TYPE("scale_cols", &t[0], &t[1]);
  const struct ten* list[] = {&t[1], &t[0]};
  return each((struct call){.kernel = "scale_cols", .suffix = t[0].dtype, .fc = {.wide = wide(list, 2)},
                            .buffers = {&t[1], &t[2], &t[0]}, .count = 3}, t[0].numel, 4, (struct EachArgs){.cols = t[0].cols});
}

OP(copy, 2, OUT(out), NEED(x)) {
  (void)a;
  if (t[0].dtype == t[1].dtype) return copy_bytes(&t[0], &t[1]);
  if (!is_float(t[0].dtype)) return no_kernel("copy", t[0].dtype);
  if (!is_weight(t[1].dtype)) return no_kernel("copy", t[1].dtype);
  return each((struct call){.kernel = "copy", .suffix = t[0].dtype,
                            .fc = {.type = t[1].dtype, .wide = by_four(&t[0]), .wide_b = by_four(&t[1])},
                            .buffers = {&t[1], &t[0]}, .count = 2}, t[0].numel, 8, (struct EachArgs){0});
}

OP(dropout, 3, OUT(out), NEED(x), NEED(seed)) {
  ONE_TYPE("dropout", &t[0], &t[1]);
  const struct ten* list[] = {&t[1], &t[0]};
  return each((struct call){.kernel = "dropout", .suffix = t[0].dtype, .fc = {.wide = wide(list, 2)},
                            .buffers = {&t[1], &t[2], &t[0]}, .count = 3}, t[0].numel, 4,
              (struct EachArgs){.stream = a->stream, .threshold = a->threshold, .factor = a->factor});
}

OP(noise, 4, OUT(out), NEED(x), NEED(magnitude), NEED(seed)) {
  ONE_TYPE("noise", &t[0], &t[1]);
  const struct ten* list[] = {&t[1], &t[0]};
  return each((struct call){.kernel = "noise", .suffix = t[0].dtype, .fc = {.wide = wide(list, 2)},
                            .buffers = {&t[1], &t[2], &t[3], &t[0]}, .count = 4}, t[0].numel, 4,
              (struct EachArgs){.cols = t[0].cols, .stream = a->stream});
}

OP(glu, 3, OUT(h), NEED(gate), MAYBE(up)) {
  ONE_TYPE("glu", &t[0], &t[1], &t[2]);
  const struct ten* list[] = {&t[0], &t[1], &t[2]};
  return each((struct call){.kernel = "glu", .suffix = t[0].dtype,
                            .fc = {.kind = a->act, .wide = wide(list, 3), .optional = t[2].slot != 0},
                            .buffers = {&t[1], &t[2], &t[0]}, .count = 3}, t[0].numel, 4, (struct EachArgs){0});
}

OP(glu_bwd, 6, OUT(d_gate), MAYBE_OUT(d_up), OUT(h), NEED(dh), NEED(gate), MAYBE(up)) {
  ONE_TYPE("glu_bwd", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5]);
  const struct ten* list[] = {&t[0], &t[1], &t[2], &t[3], &t[4], &t[5]};
  return each((struct call){.kernel = "glu_bwd", .suffix = t[0].dtype,
                            .fc = {.kind = a->act, .wide = wide(list, 6), .optional = t[5].slot != 0},
                            .buffers = {&t[4], &t[5], &t[3], &t[2], &t[0], &t[1]}, .count = 6},
              t[0].numel, 4, (struct EachArgs){0});
}

OP(norm, 5, OUT(out), OUT(stat), NEED(x), NEED(w), MAYBE(b)) {
  ONE_TYPE("norm", &t[0], &t[2]);
  ONE_TYPE("norm", &t[3], &t[4]);
  const struct ten* list[] = {&t[0], &t[2]};
  return each_row((struct call){.kernel = "norm", .suffix = t[0].dtype,
                                .fc = {.type = t[3].dtype, .kind = a->kind, .wide = t[2].cols % 4 == 0 && wide(list, 2),
                                       .optional = t[4].slot != 0},
                                .buffers = {&t[2], &t[3], &t[4], &t[0], &t[1]}, .count = 5},
                  t[2].rows, (struct RowArgs){.rows = t[2].rows, .cols = t[2].cols, .eps = a->eps, .plus = a->plus_one ? 1 : 0});
}

// Column sums: kind 0 of x, 1 of x * b, 2 of x * (b - mean) * rstd
static int32_t columns(const struct ten* out, const struct ten* x, const struct ten* b, const struct ten* stat, uint32_t kind) {
  if (x->rows == 0) return US_OK;
  const struct RowArgs args = {.rows = x->rows, .cols = x->cols};
  const struct call c = {
    .kernel = "columns", .suffix = x->dtype, .fc = {.kind = kind}, .buffers = {out, x, b ? b : x, stat ? stat : out},
    .count = 4, .args = &args, .args_bytes = sizeof args, .threads = 256, .grid = {groups_of(x->cols, 32)},
    .work = 30.0 * 8 * (double)x->numel,
  };
  return launch(&c);
}

OP(norm_bwd, 7, OUT(dx), MAYBE_OUT(dw), MAYBE_OUT(db), NEED(d_out), NEED(x), NEED(w), NEED(stat)) {
  ONE_TYPE("norm_bwd", &t[0], &t[3], &t[4]);
  ONE_TYPE("norm_bwd", &t[5]);
  const struct ten* list[] = {&t[0], &t[3], &t[4]};
  int32_t status = each_row(
      (struct call){.kernel = "norm_bwd", .suffix = t[0].dtype,
                    .fc = {.type = t[5].dtype, .kind = a->kind, .wide = t[4].cols % 4 == 0 && wide(list, 3)},
                    .buffers = {&t[0], &t[3], &t[4], &t[5], &t[6]}, .count = 5},
      t[4].rows, (struct RowArgs){.rows = t[4].rows, .cols = t[4].cols, .eps = a->eps, .plus = a->plus_one ? 1 : 0});
  if (status == US_OK && t[1].slot) status = columns(&t[1], &t[3], &t[4], &t[6], 2);
  if (status == US_OK && t[2].slot) status = columns(&t[2], &t[3], 0, 0, 0);
  return status;
}

OP(col_sum, 2, OUT(out), NEED(x)) {
  (void)a;
  ONE_TYPE("col_sum", &t[1]);
  return columns(&t[0], &t[1], 0, 0, 0);
}
OP(col_dot, 3, OUT(out), NEED(a), NEED(b)) {
  (void)a;
  ONE_TYPE("col_dot", &t[1], &t[2]);
  return columns(&t[0], &t[1], &t[2], 0, 1);
}

OP(rope, 3, OUT(x), NEED(pos), NEED(freqs)) {
  ONE_TYPE("rope", &t[0]);
  const struct RopeArgs args = {(u32)t[0].shape[0], (u32)t[0].shape[1], (u32)t[0].shape[2], (u32)t[2].numel,
                                (float)a->sign, a->factor};
  if (t[0].numel == 0 || args.half_size == 0) return US_OK;
  const struct call c = {
    .kernel = "rope", .suffix = t[0].dtype, .buffers = {&t[0], &t[1], &t[2]}, .count = 3, .args = &args,
    .args_bytes = sizeof args, .threads = 256, .grid = {groups_of((uint64_t)args.tokens * args.half_size, 256)},
    .work = 30.0 * 8 * (double)t[0].numel,
  };
  return launch(&c);
}

OP(embed, 3, OUT(out), NEED(table), NEED(ids)) {
  ONE_TYPE("embed", &t[0]);
  if (!is_weight(t[1].dtype)) return no_kernel("embed", t[1].dtype);
  return each_row((struct call){.kernel = "embed", .suffix = t[0].dtype,
                                .fc = {.type = t[1].dtype, .wide_b = by_four(&t[1]) && t[1].cols % 4 == 0},
                                .buffers = {&t[1], &t[2], &t[0]}, .count = 3},
                  t[0].rows, (struct RowArgs){.rows = t[1].rows, .cols = t[0].cols, .scale = a->scale});
}

OP(embed_bwd, 3, OUT(d_table), NEED(d_out), NEED(ids)) {
  ONE_TYPE("embed_bwd", &t[1]);
  return each_row((struct call){.kernel = "embed_bwd", .suffix = t[1].dtype, .buffers = {&t[0], &t[1], &t[2]}, .count = 3},
                  t[1].rows, (struct RowArgs){.rows = t[0].rows, .cols = t[1].cols, .scale = a->scale, .inner = (u32)t[1].rows});
}

OP(row_norm, 4, OUT(out), NEED(w), NEED(a), NEED(b)) {
  if (!is_weight(t[1].dtype)) return no_kernel("row_norm", t[1].dtype);
  return each_row((struct call){.kernel = "row_norm", .suffix = NO_SUFFIX,
                                .fc = {.type = t[1].dtype, .wide_b = by_four(&t[1]) && t[1].cols % 4 == 0},
                                .buffers = {&t[1], &t[2], &t[3], &t[0]}, .count = 4},
                  t[1].rows, (struct RowArgs){.rows = t[1].rows, .cols = t[1].cols, .scale = a->scale, .inner = (u32)t[2].shape[0]});
}

OP(cross_entropy, 4, OUT(loss), OUT(logits), NEED(target), NEED(weight)) {
  ONE_TYPE("cross_entropy", &t[1]);
  const struct LossArgs args = {t[1].cols, a->softcap, a->smoothing, a->z_loss, 0};
  const struct call c = {
    .kernel = "cross_entropy", .suffix = t[1].dtype, .fc = {.wide = by_four(&t[1]) && t[1].cols % 4 == 0},
    .buffers = {&t[1], &t[2], &t[3], &t[0]}, .count = 4, .args = &args, .args_bytes = sizeof args, .threads = 256,
    .grid = {t[1].rows}, .work = 30.0 * 12 * (double)t[1].numel,
  };
  return t[1].rows ? launch(&c) : US_OK;
}

// No 8-bit matrix units; and host memory is the device's here, so that moving tensors there gains nothing.
US_LACKS(us_quantize_fp8)
US_LACKS(us_host_slot)
US_LACKS(us_stash)
US_LACKS(us_fetch)
US_LACKS(us_slot_wait)
