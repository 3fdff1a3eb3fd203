// Buffers by handle: slot in the low 20 bits (from 1), generation in the high 12, so that a freed handle is told from a new
// one. Buffers are shared between CPU and GPU: the same memory, no copies inside the device. Freed ones go to the cache.
#include "library.h"

enum { SLOT_BITS = 20, SLOT_MASK = (1 << SLOT_BITS) - 1, LARGEST_GENERATION = 0xfff };
// Slots stay where they are, because tensors point at them: pages of them, found through a table.
enum { PAGE = 1024, PAGES = (SLOT_MASK + 1) / PAGE };
static struct slot* pages[PAGES];
static uint32_t slot_count, *free_slots, free_count, free_room;
static struct slot rooms[ROOM_COUNT];
uint64_t active_bytes, peak_bytes;

static struct slot* slot_at(uint32_t i) { return &pages[i / PAGE][i % PAGE]; }

struct slot* find_slot(uint32_t handle) {
  const uint32_t i = (handle & SLOT_MASK) - 1;
  if ((handle & SLOT_MASK) == 0 || i >= slot_count) return 0;
  struct slot* s = slot_at(i);
  return s->buffer && (s->generation & LARGEST_GENERATION) == handle >> SLOT_BITS ? s : 0;
}

// Index of an unused slot; -1 when there is none.
static int64_t take_slot(void) {
  if (free_count) return free_slots[--free_count];
  if (slot_count == SLOT_MASK) return -1;
  if (!pages[slot_count / PAGE] && !(pages[slot_count / PAGE] = calloc(PAGE, sizeof(struct slot)))) return -1;
  return slot_count++;
}

static void count_in(struct slot* s, uint64_t bytes, uint64_t held) {
  s->bytes = bytes, s->held = held;
  active_bytes += held;
  if (active_bytes > peak_bytes) peak_bytes = active_bytes;
}

// Whether so many bytes may be held besides what is in use; cached memory makes way for them.
static int32_t make_room(uint64_t bytes) {
  if (bytes > device.largest || active_bytes + bytes > device.limit) {
    return fail(US_MEMORY, "%u bytes are in use of the %u that this process may hold (a buffer: %u at most)",
                active_bytes, device.limit, device.largest);
  }
  if (active_bytes + cached_bytes + bytes > device.limit) trim_cache(device.limit - active_bytes - bytes);
  return US_OK;
}

static int32_t fill_slot(struct slot* s, uint64_t bytes) {
  if (take_cached(bytes, s)) {
    count_in(s, bytes, s->held);
    return US_OK;
  }
  const int32_t status = make_room(bytes);
  if (status != US_OK) return status;
  id b = 0;
  for (int attempt = 0; attempt < 2 && !b; attempt++) {
    if (attempt) trim_cache(0);
    // 0: MTLResourceStorageModeShared, default caching, hazards tracked
    b = SEND(id, device.device, S(newBuffer), NSUInteger, NSUInteger), (NSUInteger)bytes, 0UL END;
  }
  if (!b) return fail(US_MEMORY, "Metal gives no buffer of %u bytes", bytes);
  s->buffer = b, s->at = SEND(char*, b, S(contents)) END, s->used_by = 0, s->read_only = false;
  count_in(s, bytes, bytes);
  return US_OK;
}

// Command buffers hold what they use: a file's pages are let go of when the last of them has run.
static void empty_slot(struct slot* s) {
  active_bytes -= s->held;
  if (s->read_only) release(s->buffer);
  else cache_buffer(s);
  s->buffer = 0, s->at = 0, s->bytes = s->held = 0;
  s->generation++;
}

// The handle of a slot that was taken and filled; a slot that could not be filled is free again.
static int32_t hand_out(int64_t i, int32_t status, uint32_t* handle) {
  if (status == US_OK) *handle = (slot_at((uint32_t)i)->generation & LARGEST_GENERATION) << SLOT_BITS | (uint32_t)(i + 1);
  // Room for it exists: the slot was taken from the list or is the newest.
  else if (i == slot_count - 1) slot_count--;
  else free_slots[free_count++] = (uint32_t)i;
  return status;
}

int32_t allocate(uint64_t bytes, uint32_t* handle) {
  const int64_t i = take_slot();
  if (i < 0) return fail(US_MEMORY, "Cannot allocate: there are %u allocations already", (uint64_t)SLOT_MASK);
  return hand_out(i, fill_slot(slot_at((uint32_t)i), bytes ? bytes : 1), handle);
}

int32_t adopt(const char* path, uint64_t offset, uint64_t bytes, uint32_t* skip, uint32_t* handle) {
  const int64_t i = take_slot();
  if (i < 0) return fail(US_MEMORY, "Cannot map: there are %u allocations already", (uint64_t)SLOT_MASK);
  struct slot* s = slot_at((uint32_t)i);
  int32_t status = make_room(bytes);
  if (status == US_OK) status = map_pages(path, offset, bytes, skip, s);
  if (status == US_OK) s->used_by = 0, s->read_only = true, count_in(s, *skip + bytes, s->held);
  return hand_out(i, status, handle);
}

int32_t give_back(uint32_t handle) {
  struct slot* s = find_slot(handle);
  if (!s) return fail(US_STALE, "Cannot free handle %u: it is not allocated or was freed", (uint64_t)handle);
  if (free_count == free_room) {
    uint32_t* more = realloc(free_slots, (free_room * 2 + 64) * sizeof *more);
    if (!more) return fail(US_MEMORY, "Cannot free handle %u: no memory is left to note it", (uint64_t)handle);
    free_slots = more, free_room = free_room * 2 + 64;
  }
  empty_slot(s);
  free_slots[free_count++] = (handle & SLOT_MASK) - 1;
  return US_OK;
}

void give_back_all(void) {
  free_count = 0;
  for (uint32_t i = 0; i < slot_count; i++) {
    if (slot_at(i)->buffer) empty_slot(slot_at(i));
  }
  for (int i = 0; i < ROOM_COUNT; i++) {
    if (rooms[i].buffer) empty_slot(&rooms[i]);
  }
  trim_cache(0);
  // Generations outlive a closing, so that a handle from before it stays stale: every slot is free again.
  uint32_t* all = realloc(free_slots, (slot_count + 1) * sizeof *all);
  if (all) {
    free_slots = all, free_room = slot_count + 1;
    while (free_count < slot_count) free_slots[free_count] = slot_count - 1 - free_count, free_count++;
  }
  active_bytes = peak_bytes = 0;
}

struct slot* room_for(enum room which, uint64_t bytes) {
  struct slot* s = &rooms[which];
  if (bytes <= s->bytes) return s;
  if (s->buffer) empty_slot(s);
  return fill_slot(s, bytes + bytes / 8 + 4096) == US_OK ? s : 0;
}

bool is_float(uint32_t dtype) { return dtype == US_F32 || dtype == US_BF16 || dtype == US_F16; }
bool is_quant(uint32_t dtype) { return dtype >= US_Q4_0 && dtype <= US_NF4; }
bool aligned(const struct ten* t, uint32_t bytes) { return !t->slot || t->offset % bytes == 0; }
bool by_four(const struct ten* t) { return aligned(t, t->dtype == US_F32 ? 16 : 8); }

// Bytes that an element of the type must be aligned to.
static uint32_t alignment(uint32_t dtype) {
  if (dtype == US_F32 || dtype == US_I32) return 4;
  return dtype == US_U8 || dtype == US_FP8_E4M3 ? 1 : 2;
}

int32_t resolve(const us_tensor* t, bool optional, struct ten* out) {
  *out = (struct ten){0};
  if (t->handle == 0 && optional) return US_OK;
  struct slot* s = find_slot(t->handle);
  if (!s) return fail(US_STALE, "Cannot use handle %u: it is not allocated or was freed", (uint64_t)t->handle);
  if (t->ndim > 4) return fail(US_INVALID, "Cannot use a tensor of %u axes: at most 4", (uint64_t)t->ndim);
  out->slot = s, out->offset = us_offset(t), out->dtype = t->dtype, out->ndim = t->ndim;
  for (int i = 0; i < 4; i++) out->shape[i] = t->shape[i];
  out->numel = us_numel(t), out->rows = us_rows(t), out->cols = us_cols(t), out->bytes = us_bytes(t->dtype, out->numel);
  if (out->numel && !out->bytes) return fail(US_UNSUPPORTED, "Cannot use element type %u on Metal", (uint64_t)t->dtype);
  if (out->offset > s->bytes || out->bytes > s->bytes - out->offset) {
    return fail(US_INVALID, "Cannot use a tensor of %u bytes at offset %u: the allocation has %u bytes", out->bytes,
                out->offset, s->bytes);
  }
  if (out->offset % alignment(t->dtype)) {
    return fail(US_INVALID, "Cannot use a tensor at offset %u: it must be a multiple of %u", out->offset,
                (uint64_t)alignment(t->dtype));
  }
  return US_OK;
}
