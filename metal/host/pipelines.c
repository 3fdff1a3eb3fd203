// Pipelines by kernel name and function constants, made when first asked for and kept until the library closes. Each is
// made for the threads it will be launched with, so that the compiler keeps to registers that many threads have.
#include "library.h"

enum { NAME = 40 };
struct pipeline { uint64_t hash; char name[NAME]; struct constants fc; uint32_t threads; id state; };
static struct pipeline* kept;
static uint32_t count, room;

static uint64_t hash_of(const void* p, size_t n, uint64_t h) {
  for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t*)p)[i]) * 1099511628211ull;
  return h;
}

static void set_constant(id values, const void* value, NSUInteger type, NSUInteger index) {
  SEND(void, values, S(setConstant), const void*, NSUInteger, NSUInteger), value, type, index END;
}

// +1, or 0 with the reason in error.
static id state_of(id function, uint32_t threads, id* error) {
  id d = SEND(id, objc_getClass("MTLComputePipelineDescriptor"), S(make)) END;
  SEND(void, d, S(setFunction), id), function END;
  SEND(void, d, S(setMost), NSUInteger), (NSUInteger)threads END;
  SEND(void, d, S(setWhole), bool), true END;
  id state = SEND(id, device.device, S(newPipeline), id, NSUInteger, id*, id*), d, 0UL, (id*)0, error END;
  release(d);
  return state;
}

static id build(const char* kernel, const struct constants* c, uint32_t threads) {
  enum { BOOL = 53, UINT = 33 };  // MTLDataType
  void* pool = objc_autoreleasePoolPush();
  id error = 0, state = 0, values = SEND(id, objc_getClass("MTLFunctionConstantValues"), S(make)) END;
  const uint32_t words[] = {c->type, c->out, c->kind};
  const uint8_t flags[] = {c->trans_a, c->trans_b, c->wide, c->wide_b, c->optional};
  for (uint32_t i = 0; i < 3; i++) set_constant(values, &words[i], UINT, FC_TYPE + i);
  for (uint32_t i = 0; i < 5; i++) set_constant(values, &flags[i], BOOL, FC_TRANS_A + i);
  id function = SEND(id, device.library, S(newFunction), id, id, id*), string(kernel), values, &error END;
  if (function) state = state_of(function, threads, &error);
  if (!state) {
    fail_with(US_DEVICE, "Cannot build a pipeline of the Metal kernels", error);
  } else if (SEND(NSUInteger, state, S(simdWidth)) END != 32) {
    fail(US_DEVICE, "Cannot use Metal: %s runs in simdgroups of another size than 32", kernel);
    release(state);
    state = 0;
  }
  release(function);
  release(values);
  objc_autoreleasePoolPop(pool);
  return state;
}

id find_pipeline(const char* kernel, const struct constants* c, uint32_t threads) {
  struct pipeline want = {.fc = *c, .threads = threads};
  put_text(kernel, want.name, NAME);
  want.hash = hash_of(c, sizeof *c, hash_of(want.name, NAME, 14695981039346656037ull));
  for (uint32_t i = 0; i < count; i++) {
    const struct pipeline* p = &kept[i];
    if (p->hash == want.hash && !memcmp(p->name, want.name, NAME) && !memcmp(&p->fc, c, sizeof *c) && p->threads == threads) {
      return p->state;
    }
  }
  if (count == room) {
    struct pipeline* more = realloc(kept, (room * 2 + 32) * sizeof *kept);
    if (!more) {
      fail(US_MEMORY, "Cannot keep another pipeline: no memory is left");
      return 0;
    }
    kept = more, room = room * 2 + 32;
  }
  if (!(want.state = build(kernel, c, threads))) return 0;
  kept[count++] = want;
  return want.state;
}

void drop_pipelines(void) {
  for (uint32_t i = 0; i < count; i++) release(kept[i].state);
  free(kept);
  kept = 0, count = room = 0;
}
