// Bytes between the caller and the device. Buffers are shared memory, so a copy is a memcpy once the GPU is done with it;
// a small upload over memory still in use goes through a staging buffer and is copied by the GPU, in order, unwaited.
#include "library.h"

enum { STAGING_BYTES = 4 << 20, LARGEST_STAGED = 1 << 20 };
static uint64_t staging_at;

int32_t copy_bytes(const struct ten* out, const struct ten* x) {
  const struct EachArgs args = {.n = out->bytes};
  const struct call c = {
    .kernel = "copy_bytes", .suffix = NO_SUFFIX, .fc = {.wide = aligned(out, 16) && aligned(x, 16)},
    .buffers = {x, out}, .count = 2, .args = &args, .args_bytes = sizeof args, .threads = 256,
    .grid = {groups_of(out->bytes, 4096)}, .work = 60.0 * (double)out->bytes,
  };
  return out->bytes ? launch(&c) : US_OK;
}

int32_t upload(struct slot* to, uint64_t offset, const void* src, uint64_t bytes) {
  if (to->used_by > finished_number()) {
    if (bytes > LARGEST_STAGED) {
      const int32_t status = wait_all();
      if (status != US_OK) return status;
    } else {
      struct slot* s = room_for(STAGING, STAGING_BYTES);
      if (!s) return US_MEMORY;
      if (staging_at + bytes > STAGING_BYTES) {
        const int32_t status = wait_all();
        if (status != US_OK) return status;
        staging_at = 0;
      }
      memcpy(s->at + staging_at, src, bytes);
      const struct ten from = {.slot = s, .offset = staging_at, .bytes = bytes}, out = {.slot = to, .offset = offset, .bytes = bytes};
      staging_at += (bytes + 255) & ~255ull;
      return copy_bytes(&out, &from);
    }
  }
  memcpy(to->at + offset, src, bytes);
  return US_OK;
}

static struct slot* range(uint32_t handle, uint64_t offset, uint64_t bytes, bool written, int32_t* status) {
  struct slot* s = find_slot(handle);
  *status = US_OK;
  if (!s) *status = fail(US_STALE, "Cannot transfer: handle %u is not allocated or was freed", (uint64_t)handle);
  else if (offset > s->bytes || bytes > s->bytes - offset) {
    *status = fail(US_INVALID, "Cannot transfer %u bytes at offset %u: the allocation has %u bytes", bytes, offset, s->bytes);
  } else if (written && s->read_only) {
    *status = fail(US_INVALID, "Cannot upload to handle %u: it is a file's memory, which is read only", (uint64_t)handle);
  }
  return s;
}
static uint64_t join(uint32_t low, uint32_t high) { return (uint64_t)high << 32 | low; }

US_API int32_t us_upload(us_upload_args* a, const void* src) {
  int32_t status = enter(0, 0, 0);
  if (status == US_OK) {
    const uint64_t offset = join(a->off_lo, a->off_hi), bytes = join(a->bytes_lo, a->bytes_hi);
    struct slot* s = range(a->handle, offset, bytes, true, &status);
    if (status == US_OK) status = upload(s, offset, src, bytes);
  }
  leave();
  return status;
}

US_API int32_t us_download(us_download_args* a, void* dst) {
  int32_t status = enter(0, 0, 0);
  if (status == US_OK) {
    const uint64_t offset = join(a->off_lo, a->off_hi), bytes = join(a->bytes_lo, a->bytes_hi);
    const struct slot* s = range(a->handle, offset, bytes, false, &status);
    if (status == US_OK) status = wait_all();
    if (status == US_OK) memcpy(dst, s->at + offset, bytes);
  }
  leave();
  return status;
}

US_API int32_t us_fill(us_fill_args* a) {
  struct ten t;
  const struct operand dst = {&a->dst, false, true};
  int32_t status = enter(&dst, 1, &t);
  if (status == US_OK && t.dtype > US_U8) status = fail(US_UNSUPPORTED, "Cannot fill element type %u on Metal", (uint64_t)t.dtype);
  if (status == US_OK && t.numel) {
    const struct EachArgs args = {.n = t.numel, .factor = a->value, .integer = a->integer};
    const struct call c = {
      .kernel = "fill", .suffix = t.dtype, .buffers = {&t}, .count = 1, .args = &args, .args_bytes = sizeof args,
      .threads = 256, .grid = {groups_of(t.numel, 1024)}, .work = 30.0 * (double)t.bytes,
    };
    status = launch(&c);
  }
  leave();
  return status;
}

US_API int32_t us_fence(void) {
  int32_t status = enter(0, 0, 0);
  if (status == US_OK) status = wait_all();
  leave();
  return status;
}
