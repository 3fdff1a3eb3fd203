// Which machines are refused and in which words; handles, views, transfers, opening and closing.
#include <set>
#include <thread>

#include "host.h"

extern "C" int32_t us_profile_start(void);

namespace {

/** A machine on which neither the probe nor opening works, with the sentence for both. */
void refused(const char* what, const char* sentence) {
  check(std::string(what) + ": the probe says so", us_device_probe() == US_NO_DEVICE && says(sentence));
  check(std::string(what) + ": opening says so", us_open(0) == US_NO_DEVICE && says(sentence));
  us_alloc_args a{64, 0, 0};
  check(std::string(what) + ": nothing is open", us_alloc(&a) == US_DEVICE && says("us_open has not been called"));
  fake::reset();
}

T f32(uint32_t handle, uint64_t offset, std::vector<uint32_t> shape) { return view(handle, offset, US_F32, shape); }

int32_t add(T out, T a, T b) {
  us_add_args args{out, a, b};
  return us_add(&args);
}

}  // namespace

void test_machines() {
  fake::settings.driver = 0;
  check("no driver: none counted, none named", us_device_count() == 0 && us_device_name(0, nullptr, 0) == 0);
  refused("no driver", "no NVIDIA driver is installed; install 580 or later");
  fake::settings.driver = 12040;
  refused("an old driver", "the driver supports CUDA 12.4 and 13.0 is needed; update it to 580 or later");
  fake::settings.devices.clear();
  refused("a driver without a device", "the driver finds no device; see nvidia-smi -L");
  fake::settings.count_error = cudaErrorNoDevice;
  refused("a device that the driver hides", "the driver finds no device");
  fake::settings.count_error = cudaErrorDevicesUnavailable;
  refused("another failure", "busy or unavailable");
  fake::settings.devices = {{7, 5, size_t{1} << 30}, {6, 1, size_t{1} << 30}};
  refused("old devices only", "no device has compute capability 8.0 or later");

  fake::settings.devices = {{8, 6, size_t{3} << 30}, {7, 5, size_t{1} << 30}, {9, 0, size_t{2} << 30}};
  char name[200];
  check("three devices", us_device_probe() == US_OK && us_device_count() == 3);
  us_device_name(2, name, sizeof name);
  check("a device's line", !strcmp(name, "Fake 2, 2 GiB, compute 9.0, CUDA 13.0"));
  check("no line for a device that is not there", us_device_name(3, name, sizeof name) == 0 && name[0] == 0);
  check("an index past the last", us_open(3) == US_NO_DEVICE && says("CUDA device 3: the devices here are 0 to 2"));
  check("-1 as an index", us_open(0xffffffffu) == US_NO_DEVICE && says("the devices here are 0 to 2"));
  check("an old device beside a new one", us_open(1) == US_NO_DEVICE && says("device 1: its compute capability is 7.5 and 8.0 is needed"));
  check("nothing of it stays", fake::live().empty());
  check("the third device", us_open(2) == US_OK);
  check("another one while it is open", us_open(0) == US_BUSY && says("device 2 is open in this process"));
  check("its memory is the limit", memory().limit_hi == 0 && memory().limit_lo == 2u << 30);
  check("closing", us_close() == US_OK && us_open(0) == US_OK && us_close() == US_OK);
  check("closing once more", us_close() == US_DEVICE && says("us_open has not been called"));
  fake::reset();
}

void test_library() {
  char small[8], whole[4096];
  const uint32_t n = us_ops(whole, sizeof whole);
  check("the version", us_abi_version() == US_ABI_VERSION);
  check("the operations with their hashes", n == strlen(whole) && !strncmp(whole, US_OP_LIST, strlen(US_OP_LIST)));
  check("a text is cut to the room", us_ops(small, sizeof small) == n && strlen(small) == 7);
  check("no room is no crash", us_ops(small, 0) == n && us_ops(nullptr, 0) == n);
  check("types", us_supports(US_BF16, US_AS_ACTIVATION) && us_supports(US_Q4_K, US_AS_WEIGHT) && !us_supports(US_Q4_K, US_AS_ACTIVATION) &&
                     !us_supports(US_I32, US_AS_WEIGHT) && !us_supports(99, US_AS_WEIGHT) &&
                     !us_supports(US_FP8_128, US_AS_ACTIVATION) && us_act_dtype() == US_BF16);
  check("open", us_open(0) == US_OK && us_open(0) == US_OK && us_close() == US_OK);
  check("8-bit base weights on Hopper", us_supports(US_FP8_128, US_AS_WEIGHT) == 1);
  const uint32_t w = alloc(2 * 32772);
  us_quantize_fp8_args q{view(w, 0, US_FP8_128, {128, 128}), view(w, 32784, US_BF16, {8, 128}), 0};
  check("an 8-bit weight is a tensor", us_quantize_fp8(&q) == US_OK);
  q.out.shape[0] = 256;
  check("and has its bytes", us_quantize_fp8(&q) == US_OK && (q.out.off_lo = 16, us_quantize_fp8(&q) == US_INVALID) && says("the allocation has 65544"));
  us_free(w);

  const uint32_t x = alloc(1024);
  fake::settings.fail_at = 1, fake::settings.failure = cudaErrorInvalidValue;
  check("a wait that failed is told", us_fence() == US_DEVICE && says("invalid argument"));
  check("and once: the next launch is not blamed for it", add(f32(x, 0, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_OK && us_fence() == US_OK);
  check("handle 0 is none", add(f32(0, 0, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_STALE && says("handle 0"));
  check("a foreign handle", us_free(77) == US_STALE && says("Cannot free handle 77"));
  check("a handle of a slot that never was", us_free(x + 1) == US_STALE && us_free(0) == US_STALE && us_free(0xfff00000u) == US_STALE);
  check("the end of the allocation", add(f32(x, 992, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_OK);
  check("past the end", add(f32(x, 996, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_INVALID && says("32 bytes at offset 996: the allocation has 1024"));
  check("an offset of 64 bits", add(f32(x, uint64_t{1} << 32, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_INVALID);
  check("an offset off the element", add(f32(x, 2, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_INVALID && says("offset 2: it must be a multiple of 4"));
  check("16 bits lie at even offsets", add(view(x, 2, US_BF16, {8}), view(x, 2, US_BF16, {8}), view(x, 3, US_BF16, {8})) == US_INVALID && says("multiple of 2"));
  for (std::vector<uint32_t> s : {std::vector<uint32_t>{65536, 65536, 65536, 65536}, {1u << 31, 1u << 31, 4, 1}, {1u << 30, 1u << 30, 1u << 2, 1u}}) {
    check("sizes whose product passes 64 bits", add(f32(x, 0, s), f32(x, 0, s), f32(x, 0, s)) == US_INVALID && says("no device holds as many"));
  }
  check("five axes", add(view(x, 0, US_F32, {1, 1, 1, 1, 1}), f32(x, 0, {1}), f32(x, 0, {1})) == US_INVALID && says("at most 4"));
  check("an unknown type", add(view(x, 0, 9, {8}), f32(x, 0, {8}), f32(x, 0, {8})) == US_UNSUPPORTED && says("element type 9"));
  check("mixed types", add(f32(x, 0, {8}), f32(x, 0, {8}), view(x, 0, US_F16, {8})) == US_UNSUPPORTED && says("different types"));
  us_fill_args fill{view(x + 7, 0, US_F32, {8}), 0, 0};
  check("fill of a foreign handle", us_fill(&fill) == US_STALE);

  Bytes b(33);
  check("no bytes", upload(x, 1024, {}) == US_OK);
  check("transfers past the end", upload(x, 992, b) == US_INVALID && says("33 bytes at offset 992") && download(x, 992, b) == US_INVALID);
  check("transfers far past the end", download(x, ~uint64_t{0} - 8, b) == US_INVALID && download(x, 1025, b) == US_INVALID);
  check("free", us_free(x) == US_OK && us_free(x) == US_STALE && says("was freed"));
  check("stale in transfers", upload(x, 0, b) == US_STALE && download(x, 0, b) == US_STALE);
  const uint32_t y = alloc(64);
  check("a new handle for the slot", y && y != x && us_free(x) == US_STALE);
  check("close", us_close() == US_OK && us_open(0) == US_OK);
  check("a handle from before", us_free(y) == US_STALE);
  const uint32_t z = alloc(64);
  check("and when its slot is used again", us_free(y) == US_STALE && us_free(x) == US_STALE && us_free(z) == US_OK);
  check("close", us_close() == US_OK);
}

void test_memory() {
  us_open(0);
  const size_t before = fake::bytes_in_use();
  const uint32_t big = alloc(100u << 20);
  check("bytes in use", memory().active_lo == 100u << 20 && fake::bytes_in_use() == before + (100u << 20));
  check("bytes given back, the peak kept", us_free(big) == US_OK && memory().active_lo == 0 && memory().peak_lo == 100u << 20);
  check("no memory left", alloc(uint64_t{5} << 30) == 0 && says("Cannot allocate 5.00 GiB: the device has 1.00 of 1.00 GiB left; nvidia-smi"));
  us_alloc_args all{~0u, ~0u, 7};
  check("as many bytes as there are numbers", us_alloc(&all) == US_MEMORY && all.handle == 7);
  const uint32_t none = alloc(0);
  check("an empty allocation is a handle", none != 0 && us_free(none) == US_OK);

  // A slot has 4096 generations; afterwards its first handle must not come back.
  const uint32_t first = alloc(16);
  us_free(first);
  bool fresh = true;
  for (int i = 0; i < 9000; i++) {
    const uint32_t h = alloc(16);
    fresh = fresh && h != first && us_free(first) == US_STALE && us_free(h) == US_OK;
  }
  check("nine thousand handles, none of them the first again", fresh);

  std::vector<uint32_t> many;
  for (int i = 0; i < 3000; i++) many.push_back(alloc(16));
  for (size_t i = 0; i < many.size(); i += 2) us_free(many[i]), many[i] = alloc(32);
  std::set<uint32_t> distinct(many.begin(), many.end());
  bool freed = true;
  for (uint32_t h : many) freed = freed && us_free(h) == US_OK;
  check("three thousand at once", distinct.size() == many.size() && freed && memory().active_lo == 0);

  // Small uploads go through 4 MB of pinned memory that is used again, large ones directly.
  const uint32_t x = alloc(12u << 20);
  Bytes want(12u << 20), got(12u << 20);
  for (size_t i = 0; i < want.size(); i++) want[i] = static_cast<uint8_t>(fake::random());
  upload(x, 0, Bytes(want.begin(), want.begin() + (3 << 20)));
  for (size_t i = 3u << 20; i < want.size(); i += 100003) {
    const size_t n = std::min<size_t>(100003, want.size() - i);
    upload(x, i, Bytes(want.begin() + static_cast<long>(i), want.begin() + static_cast<long>(i + n)));
  }
  check("uploads", download(x, 0, got) == US_OK && got == want);
  T a = f32(x, 0, {16});
  add(a, a, a);
  check("memory that work still uses is freed after it", us_free(x) == US_OK && us_fence() == US_OK);
  check("close", us_close() == US_OK);
}

// Every close gives back what its opening took, whatever was going on.
void test_cycles(int cycles) {
  bool fine = true;
  for (int i = 0; i < cycles; i++) {
    fine = fine && us_open(0) == US_OK;
    const uint32_t h = alloc(256);
    T x = view(h, 0, US_BF16, {8, 8});
    fine = fine && add(x, x, x) == US_OK;
    us_row_norm_args rn{f32(h, 0, {8}), x, f32(h, 0, {1, 8}), f32(h, 0, {8, 1}), 1};
    fine = fine && us_row_norm(&rn) == US_OK;
    us_graph_end_args g{};
    if (i % 3 == 0) fine = fine && us_graph_begin() == US_OK && add(x, x, x) == US_OK;
    if (i % 6 == 0) fine = fine && us_graph_end(&g) == US_OK && us_graph_launch(g.graph) == US_OK;
    if (i % 4 == 0) us_profile_start();
    fine = fine && us_close() == US_OK && fake::live().empty();
  }
  check(std::to_string(cycles) + " openings leave nothing: " + fake::live(), fine);
}

void test_threads() {
  us_open(0);
  std::thread threads[3];
  bool ok[3];
  us_graph_free(1);  // this thread's sentence is another one
  for (int i = 0; i < 3; i++) {
    threads[i] = std::thread([&ok, i] {
      const uint32_t h = alloc(4096);
      T x = f32(h, 0, {100}), y = f32(h, 512, {100});
      const Bytes two(400, 2), zero(400, 0);
      bool fine = us_open(0) == US_OK && upload(h, 0, two) == US_OK && upload(h, 512, zero) == US_OK;
      for (int k = 0; k < 100; k++) fine = fine && add(y, y, x) == US_OK;
      fine = fine && us_free(12345) == US_STALE && says("12345");
      Bytes got(4);
      fine = fine && download(h, 512, got) == US_OK && got[0] == 200 && us_free(h) == US_OK && us_close() == US_OK;
      ok[i] = fine;
    });
  }
  for (std::thread& t : threads) t.join();
  check("three threads at once, each with its own sentence", ok[0] && ok[1] && ok[2] && says("Cannot free graph 1"));
  check("close", us_close() == US_OK);
}
