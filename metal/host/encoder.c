// Launches go into one open encoder of one open command buffer, in order; Metal's serial encoder makes each wait for the one
// before. A command buffer ends after so many launches or so much work, long before the system's watchdog would stop it,
// and runs while the next is filled.
#include "library.h"

// 4e11 FLOP are about a fifth of a second on the smallest M1 (2.6 TFLOP/s at its best).
enum { MOST_LAUNCHES = 256, MOST_IN_FLIGHT = 16 };
static const double MOST_WORK = 4e11;

static id open_buffer, open_encoder;
static uint32_t launches;
static double work;
// Committed command buffers from `finished` + 1 to `committed`, number n at n % MOST_IN_FLIGHT.
static id flight[MOST_IN_FLIGHT];
static uint64_t committed, finished;
static int32_t failure;  // status of the first that failed since the last wait_all; its sentence is kept below
static char reason[512];

uint64_t current_number(void) { return committed + 1; }

// Lets go of the oldest command buffer in flight, which has run.
static void retire_oldest(void) {
  enum { STATUS_ERROR = 5 };
  id b = flight[++finished % MOST_IN_FLIGHT];
  if (SEND(NSUInteger, b, S(status)) END == STATUS_ERROR && failure == US_OK) {
    failure = fail_with(US_DEVICE, "Cannot finish what was launched", SEND(id, b, S(error)) END);
    last_error(reason, sizeof reason);
  }
  release(b);
}

uint64_t finished_number(void) {
  enum { STATUS_COMPLETED = 4 };
  void* pool = objc_autoreleasePoolPush();
  while (finished < committed) {
    id b = flight[(finished + 1) % MOST_IN_FLIGHT];
    if (SEND(NSUInteger, b, S(status)) END < STATUS_COMPLETED) break;
    retire_oldest();
  }
  objc_autoreleasePoolPop(pool);
  return finished;
}

static void wait_for(uint64_t number) {
  void* pool = objc_autoreleasePoolPush();
  while (finished < number) {
    SEND(void, flight[(finished + 1) % MOST_IN_FLIGHT], S(wait)) END;
    retire_oldest();
  }
  objc_autoreleasePoolPop(pool);
}

int32_t commit_open(void) {
  if (!open_buffer) return US_OK;
  if (committed - finished == MOST_IN_FLIGHT) wait_for(finished + 1);
  void* pool = objc_autoreleasePoolPush();
  SEND(void, open_encoder, S(endEncoding)) END;
  SEND(void, open_buffer, S(commit)) END;
  release(open_encoder);
  flight[++committed % MOST_IN_FLIGHT] = open_buffer;
  open_buffer = open_encoder = 0, launches = 0, work = 0;
  objc_autoreleasePoolPop(pool);
  return US_OK;
}

int32_t wait_all(void) {
  commit_open();
  wait_for(committed);
  const int32_t status = failure;
  failure = US_OK;
  return status == US_OK ? US_OK : fail(status, "%s", reason);
}

void close_encoder(void) {
  wait_all();
  committed = finished = 0;
}

// An open encoder; false with the error set when Metal gives none.
static bool open_one(void) {
  if (open_encoder) return true;
  open_buffer = SEND(id, device.queue, S(commandBuffer)) END;
  if (open_buffer) {
    SEND(id, open_buffer, S(retain)) END;
    open_encoder = SEND(id, open_buffer, S(computeEncoder)) END;
    if (open_encoder) {
      SEND(id, open_encoder, S(retain)) END;
      return true;
    }
    release(open_buffer);
    open_buffer = 0;
  }
  fail(US_DEVICE, "Cannot launch: Metal gives no command buffer");
  return false;
}

static void name_of(const struct call* c, char* name, uint32_t cap) {
  uint32_t n = put_text(c->kernel, name, cap);
  if (c->suffix == NO_SUFFIX) return;
  static const char* const suffixes[] = {"_f32", "_bf16", "_f16", "_i32", "_u8"};
  put_text(suffixes[c->suffix], name + n, cap - n);
}

int32_t launch(const struct call* c) {
  char name[40];
  name_of(c, name, sizeof name);
  id pipeline = find_pipeline(name, &c->fc, c->threads < 64 ? 256 : c->threads);
  if (!pipeline) return US_DEVICE;
  if (c->threads > SEND(NSUInteger, pipeline, S(maxThreads)) END) {
    return fail(US_DEVICE, "Cannot launch %s: the GPU allows fewer than %u threads for it", name, (uint64_t)c->threads);
  }
  void* pool = objc_autoreleasePoolPush();
  const bool opened = open_one();
  if (opened) {
    SEND(void, open_encoder, S(setPipeline), id), pipeline END;
    for (uint32_t i = 0; i < c->count; i++) {
      const struct ten* t = c->buffers[i] && c->buffers[i]->slot ? c->buffers[i] : c->buffers[0];
      SEND(void, open_encoder, S(setBuffer), id, NSUInteger, NSUInteger), t->slot->buffer, (NSUInteger)t->offset,
          (NSUInteger)i END;
      t->slot->used_by = current_number();
    }
    SEND(void, open_encoder, S(setBytes), const void*, NSUInteger, NSUInteger), c->args, (NSUInteger)c->args_bytes,
        (NSUInteger)c->count END;
    SEND(void, open_encoder, S(dispatch), MTLSize, MTLSize), (MTLSize){c->grid[0], c->grid[1] ? c->grid[1] : 1, c->grid[2] ? c->grid[2] : 1},
        (MTLSize){c->threads, 1, 1} END;
    work += c->work;
  }
  objc_autoreleasePoolPop(pool);
  if (!opened) return US_DEVICE;
  return ++launches >= MOST_LAUNCHES || work >= MOST_WORK ? commit_open() : US_OK;
}
