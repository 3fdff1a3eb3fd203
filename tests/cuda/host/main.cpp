// host_test [group…]: the host part of the CUDA library over the fake runtime (tests/cuda/sim). Without groups, all of them;
// `pending FIRST COUNT` runs random programs by number.
#include "host.h"

static int runs = 0, bad = 0;

void check(const std::string& what, bool ok) {
  runs++;
  if (!ok) bad++, printf("FAIL %s (the last sentence is: %s)\n", what.c_str(), error().c_str());
}
std::string error() {
  char text[512];
  us_last_error(text, sizeof text);
  return text;
}
bool says(const char* part) {
  const std::string text = error();
  return text.find(part) != std::string::npos && text.rfind("Cannot ", 0) == 0 && text.back() != '.';
}

us_tensor view(uint32_t handle, uint64_t offset, uint32_t dtype, std::vector<uint32_t> shape) {
  us_tensor t{handle, dtype, static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32), static_cast<uint32_t>(shape.size()), {1, 1, 1, 1}};
  for (size_t i = 0; i < shape.size() && i < 4; i++) t.shape[i] = shape[i];
  return t;
}
uint32_t alloc(uint64_t bytes) {
  us_alloc_args a{static_cast<uint32_t>(bytes), static_cast<uint32_t>(bytes >> 32), 0};
  return us_alloc(&a) == US_OK ? a.handle : 0;
}
int32_t upload(uint32_t handle, uint64_t offset, const Bytes& bytes) {
  us_upload_args a{handle, static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32), static_cast<uint32_t>(bytes.size()), 0};
  // what the caller does with its array afterwards must not matter
  Bytes own = bytes;
  const int32_t rc = us_upload(&a, own.data());
  std::fill(own.begin(), own.end(), uint8_t{0xee});
  return rc;
}
int32_t download(uint32_t handle, uint64_t offset, Bytes& bytes) {
  us_download_args a{handle, static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32), static_cast<uint32_t>(bytes.size()), 0};
  return us_download(&a, bytes.data());
}
us_memory_args memory() {
  us_memory_args m{};
  check("memory is told", us_memory(&m) == US_OK);
  return m;
}

int main(int argc, char** argv) {
  auto wanted = [&](const char* group) {
    for (int i = 1; i < argc; i++)
      if (!strcmp(argv[i], group)) return true;
    return argc == 1;
  };
  if (wanted("machines")) test_machines();
  if (wanted("library")) test_library();
  if (wanted("memory")) test_memory();
  if (wanted("graphs")) test_graphs();
  if (wanted("profile")) test_profile();
  if (wanted("offload")) test_offload();
  if (wanted("roles")) test_roles();
  if (wanted("read")) test_read();
  if (wanted("read_failures")) test_read_failures();
  if (wanted("failures")) test_failures();
  if (wanted("threads")) test_threads();
  if (argc == 4 && !strcmp(argv[1], "pending")) test_pending(strtoull(argv[2], nullptr, 10), strtoull(argv[3], nullptr, 10));
  else if (wanted("pending")) test_pending(1, 400);
  if (wanted("cycles")) test_cycles(10000);
  else if (wanted("few_cycles")) test_cycles(24);
  check("nothing is left: " + fake::live(), fake::live().empty());
  printf("%d passed, %d failed\n", runs - bad, bad);
  return bad != 0;
}
