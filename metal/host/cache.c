// Freed buffers, kept for the next allocation of about their size: making a buffer costs the system's zeroed pages, taking one
// from here nothing. What a kept buffer holds may still be read or written by launches in flight; they come before whatever
// is launched on it next, and uploads look at used_by.
#include "library.h"

enum { MOST_KEPT = 64, SHARE = 8 };  // at most an eighth of what this process may hold
static struct { id buffer; char* at; uint64_t held, used_by; } kept[MOST_KEPT];  // oldest first
static uint32_t count;
uint64_t cached_bytes;

static void forget(uint32_t i) {
  cached_bytes -= kept[i].held;
  for (count--; i < count; i++) kept[i] = kept[i + 1];
}

bool take_cached(uint64_t bytes, struct slot* s) {
  uint32_t best = count;
  for (uint32_t i = 0; i < count; i++) {
    const uint64_t held = kept[i].held;
    if (held >= bytes && held - bytes <= bytes / 8 && (best == count || held < kept[best].held)) best = i;
  }
  if (best == count) return false;
  s->buffer = kept[best].buffer, s->at = kept[best].at, s->held = kept[best].held, s->used_by = kept[best].used_by;
  s->read_only = false;
  forget(best);
  return true;
}

void trim_cache(uint64_t most) {
  while (count && cached_bytes > most) {
    release(kept[0].buffer);
    forget(0);
  }
}

void cache_buffer(const struct slot* s) {
  const uint64_t most = device.limit / SHARE;
  if (s->held > most) {
    release(s->buffer);
    return;
  }
  trim_cache(most - s->held);
  if (count == MOST_KEPT) trim_cache(cached_bytes - kept[0].held);
  kept[count].buffer = s->buffer, kept[count].at = s->at, kept[count].held = s->held, kept[count].used_by = s->used_by;
  count++, cached_bytes += s->held;
}
