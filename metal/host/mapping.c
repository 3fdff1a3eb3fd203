// Files as device memory: their pages, mapped read only, are given to Metal as they are. Weights of a file are then read by
// the GPU from the page cache and never copied. Metal wants whole pages: a range is rounded outwards to them.
#include "library.h"

// From libSystem, with the values that macOS and Linux share (the simulator runs this file on Linux).
extern int open(const char* path, int flags, ...), close(int fd), getpagesize(void), munmap(void*, size_t);
extern int64_t lseek(int fd, int64_t offset, int whence);
extern void* mmap(void* at, size_t bytes, int protection, int flags, int fd, int64_t offset);
enum { READ_ONLY = 0, SEEK_TO_END = 2, PROT_READ_ONLY = 1, SHARED = 1 };

// A block without captured variables, as Apple's compiler would lay it out (clang's "Block Implementation Specification"):
// Metal calls it when no command buffer uses the memory any longer.
struct block { void* isa; int32_t flags, reserved; void (*invoke)(struct block*, void*, NSUInteger); const void* descriptor; };
extern void* _NSConcreteGlobalBlock[];
static void let_go(struct block* self, void* at, NSUInteger bytes) {
  (void)self;
  munmap(at, bytes);
}
static const struct { unsigned long reserved, size; } descriptor = {0, sizeof(struct block)};
static struct block unmap = {_NSConcreteGlobalBlock, 1 << 28 /* BLOCK_IS_GLOBAL */, 0, let_go, &descriptor};

int32_t map_pages(const char* path, uint64_t offset, uint64_t bytes, uint32_t* skip, struct slot* s) {
  const uint64_t page = (uint64_t)getpagesize(), from = offset / page * page, length = (offset + bytes - from + page - 1) / page * page;
  const int fd = open(path, READ_ONLY);
  if (fd < 0) return fail(US_INVALID, "Cannot map '%s': it cannot be opened", path);
  const int64_t size = lseek(fd, 0, SEEK_TO_END);
  char* at = (char*)-1;
  if (size >= 0 && offset <= (uint64_t)size && bytes <= (uint64_t)size - offset) {
    at = mmap(0, length, PROT_READ_ONLY, SHARED, fd, (int64_t)from);
  }
  close(fd);
  if (size < 0 || offset > (uint64_t)size || bytes > (uint64_t)size - offset) {
    return fail(US_INVALID, "Cannot map %u bytes at %u of '%s': it has fewer", bytes, offset, path);
  }
  if (at == (char*)-1) return fail(US_UNSUPPORTED, "Cannot map '%s': the system does not map it", path);
  void* pool = objc_autoreleasePoolPush();
  s->buffer = SEND(id, device.device, S(newBufferOver), void*, NSUInteger, NSUInteger, void*), at, (NSUInteger)length, 0UL, &unmap END;
  objc_autoreleasePoolPop(pool);
  if (!s->buffer) {
    munmap(at, length);
    return fail(US_UNSUPPORTED, "Cannot map '%s': Metal takes no buffer over its pages", path);
  }
  s->at = at, s->held = length, *skip = (uint32_t)(offset - from);
  return US_OK;
}

US_API int32_t us_map(us_map_args* a, const char* path) {
  int32_t status = enter(0, 0, 0);
  a->handle = a->skip = 0;
  const uint64_t offset = (uint64_t)a->off_hi << 32 | a->off_lo, bytes = (uint64_t)a->bytes_hi << 32 | a->bytes_lo;
  if (status == US_OK && (bytes == 0 || offset + bytes < bytes)) {
    status = fail(US_INVALID, "Cannot map %u bytes at %u of '%s'", bytes, offset, path);
  }
  if (status == US_OK) status = adopt(path, offset, bytes, &a->skip, &a->handle);
  leave();
  return status;
}
