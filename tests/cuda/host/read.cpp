// us_read: a file's bytes by several threads through pinned buffers; pieces, offsets, refusals, and each call failing in turn.
#include <unistd.h>

#include "../../../ffi/unsloth_extras.h"
#include "host.h"

namespace {

int32_t read(uint32_t handle, uint64_t to, uint64_t from, uint64_t bytes, const std::string& path) {
  us_read_args a{handle, static_cast<uint32_t>(to), static_cast<uint32_t>(to >> 32), static_cast<uint32_t>(from), static_cast<uint32_t>(from >> 32),
                 static_cast<uint32_t>(bytes), static_cast<uint32_t>(bytes >> 32)};
  return us_read(&a, path.c_str());
}
bool same(uint32_t handle, uint64_t at, const Bytes& file, uint64_t from, uint64_t bytes) {
  Bytes got(bytes);
  return download(handle, at, got) == US_OK && !memcmp(got.data(), file.data() + from, bytes);
}

}  // namespace

void test_read() {
  fake::reset();
  char name[] = "/tmp/unsloth-read-XXXXXX";
  const int fd = mkstemp(name);
  constexpr uint64_t SIZE = (20u << 20) + 13;  // five pieces of 4 MiB and a bit: all readers, some twice
  Bytes file(SIZE);
  for (uint64_t i = 0; i < SIZE; i++) file[i] = static_cast<uint8_t>(i * 7 + i / 4099);
  check("a file to read", write(fd, file.data(), SIZE) == static_cast<ssize_t>(SIZE) && close(fd) == 0);
  for (fake::Schedule s : {fake::LAZY, fake::EAGER, fake::RANDOM}) {
    fake::settings.schedule = s;
    us_open(0);
    const uint32_t h = alloc(3 * SIZE);
    check("all of it", read(h, 0, 0, SIZE, name) == US_OK && same(h, 0, file, 0, SIZE));
    check("a part, somewhere else", read(h, 12345, 4099, (9u << 20) + 1, name) == US_OK && same(h, 12345, file, 4099, (9u << 20) + 1));
    check("two at once", read(h, 0, 0, SIZE, name) == US_OK && read(h, SIZE, 0, SIZE, name) == US_OK && same(h, SIZE, file, 0, SIZE) && same(h, 0, file, 0, SIZE));
    T x = view(h, 2 * SIZE + 2, US_I32, {4});
    us_add_args twice{x, x, x};
    Bytes want(16), got(16);
    for (size_t i = 0; i < 4; i++) reinterpret_cast<uint32_t*>(want.data())[i] = 2 * reinterpret_cast<uint32_t*>(file.data())[i];
    check("what is launched after it sees it", read(h, 2 * SIZE + 2, 0, 16, name) == US_OK && us_add(&twice) == US_OK && download(h, 2 * SIZE + 2, got) == US_OK && got == want);
    check("no bytes", read(h, 3 * SIZE, 0, 0, "/nowhere") == US_OK);
    check("no file", read(h, 0, 0, 5, "/nowhere/at all") == US_INVALID && says("Cannot read '/nowhere/at all': No such file"));
    check("a folder", read(h, 0, 0, 5, "/tmp") == US_INVALID && says("Is a directory"));
    check("past the file's end", read(h, 0, SIZE - 4, 5, name) == US_INVALID && says("it became shorter"));
    check("past the allocation", read(h, 3 * SIZE - 4, 0, 5, name) == US_INVALID && says("the allocation has") && read(h, ~uint64_t{0}, 0, 5, name) == US_INVALID);
    check("a stale handle", read(h + 1, 0, 0, 5, name) == US_STALE);
    us_graph_end_args g{};
    check("not in a recording", us_graph_begin() == US_OK && read(h, 0, 0, 5, name) == US_BUSY && says("Cannot read a file while") && us_graph_end(&g) == US_OK);
    check("close", us_close() == US_OK && fake::live().empty());
  }
  unlink(name);
  fake::reset();
}

void test_read_failures() {
  fake::reset();
  char name[] = "/tmp/unsloth-read-XXXXXX";
  const int fd = mkstemp(name);
  constexpr uint64_t SIZE = (20u << 20) + 13;
  Bytes file(SIZE, 3);
  check("a file to read", write(fd, file.data(), SIZE) == static_cast<ssize_t>(SIZE) && close(fd) == 0);
  long told = 0;
  for (cudaError_t e : {cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorIllegalAddress}) {
    for (long call = 1; call <= 60; call += 3) {
      fake::reset();
      us_open(0);
      const uint32_t h = alloc(SIZE);
      fake::settings.fail_at = call, fake::settings.failure = e;
      const int32_t rc = read(h, 0, 0, SIZE, name);
      if (rc != US_OK) told++, check("a failure in words", says(cudaGetErrorString(e)));
      else check("or the right bytes", fake::settings.fail_at > 0 && (fake::settings.fail_at = -1, same(h, 0, file, 0, SIZE)));
      fake::settings.fail_at = -1;
      if (e != cudaErrorIllegalAddress) check("and again", read(h, 0, 0, SIZE, name) == US_OK && same(h, 0, file, 0, SIZE));
      check("all is given back: " + fake::live(), us_close() == US_OK && fake::live().empty());
    }
  }
  check("failures were met", told > 30);
  unlink(name);
  fake::reset();
}
