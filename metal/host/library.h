// What the host's files share: the library's one state, tensors as resolved buffers, launches, errors. Calls come from any
// thread; every exported function holds the lock while it runs, all below assume it.
#pragma once
#include "objc.h"
#include "../../ffi/unsloth_extras.h"
#include "../kernels/args.h"

// ---- error.c: the calling thread's sentence ----
// %s is text, %u an unsigned 64-bit number (pass uint64_t): there is no printf here. fail returns its status.
void print(char* to, uint32_t cap, const char* format, ...);
int32_t fail(int32_t status, const char* format, ...);
// fail, with an NSError's own description behind it.
int32_t fail_with(int32_t status, const char* what, id error);
uint32_t put_text(const char* text, char* out, uint32_t cap);
uint32_t last_error(char* out, uint32_t cap);
void lock(void);
void unlock(void);

// ---- device.c: the device, its queue, the compiled kernels ----
extern struct device {
  id device, queue, library;
  bool bf16;        // bf16 arithmetic in hardware: Apple family 9 (M3) and later
  uint64_t limit;   // bytes we may hold
  uint64_t largest; // bytes of one buffer
} device;
id find_device(void);  // +1, or 0
int32_t open_device(void);
void close_device(void);
void device_name(id d, char* out, uint32_t cap);
void release(id object);
id string(const char* text);

// ---- pipelines.c: kernels by name and function constants ----
struct constants { uint32_t type, out, kind; uint8_t trans_a, trans_b, wide, wide_b, optional, zero[3]; };
// For launches of up to so many threads a threadgroup. Null, with the error set, when it cannot be built.
id find_pipeline(const char* kernel, const struct constants* c, uint32_t threads);
void drop_pipelines(void);

// ---- memory.c: buffers by handle ----
// bytes: what the caller may use; held: what the buffer takes. read_only: its memory is a file's.
struct slot { id buffer; char* at; uint64_t bytes, held, used_by; uint32_t generation; bool read_only; };
struct slot* find_slot(uint32_t handle);
int32_t allocate(uint64_t bytes, uint32_t* handle);
// A range of a file as a read-only allocation of skip + bytes (mapping.c makes the buffer).
int32_t adopt(const char* path, uint64_t offset, uint64_t bytes, uint32_t* skip, uint32_t* handle);
int32_t give_back(uint32_t handle);
void give_back_all(void);
// The library's own memory: partial results of one operation, and copies of small uploads. Contents are undefined; 0, with
// the error set, when there is none left.
enum room { SCRATCH, STAGING, ROOM_COUNT };
struct slot* room_for(enum room which, uint64_t bytes);
extern uint64_t active_bytes, peak_bytes;

// ---- cache.c: freed buffers, kept for the next allocation of about their size ----
extern uint64_t cached_bytes;
bool take_cached(uint64_t bytes, struct slot* s);
// Takes the slot's buffer, or lets go of it when it is larger than what may be kept.
void cache_buffer(const struct slot* s);
// Lets go of the oldest until at most so many bytes are left.
void trim_cache(uint64_t most);

// ---- mapping.c: files as buffers ----
int32_t map_pages(const char* path, uint64_t offset, uint64_t bytes, uint32_t* skip, struct slot* s);

// A tensor whose handle has been looked up. slot is null for an absent optional one; rows are all axes but the last.
struct ten { struct slot* slot; uint64_t offset, numel, rows, cols, bytes, shape[4]; uint32_t dtype, ndim; };
int32_t resolve(const us_tensor* t, bool optional, struct ten* out);
bool is_float(uint32_t dtype);
bool is_quant(uint32_t dtype);
// Whether its address is a multiple of `bytes`.
bool aligned(const struct ten* t, uint32_t bytes);
// Whether loads of four elements are allowed there; of bytes and blocks any address will do.
bool by_four(const struct ten* t);

// ---- encoder.c: launches into the open command buffer ----
#define MAX_BUFFERS 10
struct call {
  const char* kernel;                    // without its type
  uint32_t suffix;                       // activation type that ends its name, or NO_SUFFIX
  struct constants fc;
  const struct ten* buffers[MAX_BUFFERS]; // [[buffer(i)]]; an absent one gets the first's memory and is not read
  uint32_t count;
  const void* args;                      // [[buffer(count)]]
  uint32_t args_bytes, threads;
  uint64_t grid[3];                       // threadgroups; 0 is 1
  double work;                           // FLOP or bytes, whichever takes longer: decides where command buffers end
};
#define NO_SUFFIX 0xffffffffu
int32_t launch(const struct call* c);
// Ends and commits the open command buffer.
int32_t commit_open(void);
// Commits and waits for everything; the failure of any command buffer since the last wait.
int32_t wait_all(void);
// Number of the command buffer that is open or next; smaller or equal to finished(): done.
uint64_t current_number(void);
uint64_t finished_number(void);
void close_encoder(void);

// ---- transfer.c ----
int32_t upload(struct slot* to, uint64_t offset, const void* src, uint64_t bytes);
int32_t copy_bytes(const struct ten* out, const struct ten* x);

// ---- what the operations stand on: enter takes the lock and resolves the tensors; leave gives the lock back ----
struct operand { const us_tensor* t; bool optional, written; };
int32_t enter(const struct operand* list, uint32_t count, struct ten* out);
void leave(void);
#define OP(name, N, ...)                                                                                              \
  static int32_t run_##name(const us_##name##_args* a, const struct ten* t);                                          \
  US_API int32_t us_##name(const us_##name##_args* a) {                                                               \
    const struct operand list[N] = {__VA_ARGS__};                                                                     \
    struct ten t[N];                                                                                                  \
    int32_t status = enter(list, N, t);                                                                               \
    if (status == US_OK) status = run_##name(a, t);                                                                   \
    leave();                                                                                                          \
    return status;                                                                                                    \
  }                                                                                                                   \
  static int32_t run_##name(const us_##name##_args* a, const struct ten* t)
#define NEED(x) {&a->x, false, false}
#define MAYBE(x) {&a->x, true, false}
#define OUT(x) {&a->x, false, true}
#define MAYBE_OUT(x) {&a->x, true, true}
// US_UNSUPPORTED unless all present tensors have the first one's float type.
int32_t one_type(const char* op, const struct ten* const* list, uint32_t count);
#define ONE_TYPE(op, ...)                                                                                             \
  do {                                                                                                                \
    const struct ten* const same[] = {__VA_ARGS__};                                                                   \
    const int32_t rc = one_type(op, same, sizeof same / sizeof *same);                                                \
    if (rc != US_OK) return rc;                                                                                       \
  } while (0)
// A launch over n elements, `per` a thread; a launch of a threadgroup a row. (launches.c)
int32_t each(struct call c, uint64_t n, uint32_t per, struct EachArgs args);
int32_t each_row(struct call c, uint64_t rows, struct RowArgs args);
static inline uint32_t groups_of(uint64_t n, uint64_t per) { return (uint32_t)((n + per - 1) / per); }
