// What cuda/host declares of each operation's tensors, read or written, against the notes of ffi/unsloth_ops.h: every
// operation, every tensor. One product is held back that meets one tensor, and what comes of it must be what comes when
// nothing is held back. The fake's operations (sim/ops.cpp) must touch what the notes say, or the comparison proves nothing.
#include <fstream>
#include <functional>
#include <sstream>

#include "host.h"

namespace {

struct Field { std::string name, note; bool tensor, real, written; };
struct Op { std::string name; size_t words; int32_t (*call)(const uint32_t* words); std::vector<Field> fields; };

template <class A, int32_t (*F)(const A*)> int32_t call(const uint32_t* words) {
  A a;
  memcpy(&a, words, sizeof a);
  return F(&a);
}
#define OP(name) {"us_" #name, sizeof(us_##name##_args) / 4, call<us_##name##_args, us_##name>, {}}
const std::vector<Op> CALLS = {
    OP(embed), OP(embed_bwd), OP(norm), OP(norm_bwd), OP(matmul), OP(rope), OP(attention), OP(attention_bwd), OP(cache_write),
    OP(attention_cached), OP(glu), OP(glu_bwd), OP(add), OP(copy), OP(scale), OP(cross_entropy), OP(sum_squares), OP(clip_factor),
    OP(adamw), OP(sgd), OP(lion), OP(adamw8), OP(adafactor), OP(noise), OP(col_sum), OP(col_dot), OP(scale_cols), OP(row_norm),
    OP(divide), OP(dropout), OP(quantize_fp8), OP(host_slot), OP(stash), OP(fetch), OP(slot_wait)};
#undef OP

/** What the notes call written. Of cache_write they give shapes alone; core/backend.ts says that it writes the caches. */
bool is_written(const std::string& op, const std::string& name, std::string note) {
  if (op == "us_cache_write") return name == "kc" || name == "vc";
  if (note.rfind("or none; ", 0) == 0) note = note.substr(9);
  for (const char* said : {"in place", "gradient out", "is written"})
    if (note.find(said) != std::string::npos) return true;
  return note.rfind("=", 0) == 0 || note.rfind("+=", 0) == 0;
}

/** The structs of the header, in order, each with its call. */
std::vector<Op> read_header() {
  const std::string here = __FILE__;
  std::ifstream header(here.substr(0, here.rfind('/') + 1) + "../../../ffi/unsloth_ops.h");
  std::vector<Op> ops;
  std::vector<Field> fields;
  for (std::string line; std::getline(header, line);) {
    std::istringstream in(line);
    std::string type, name, slashes, note;
    in >> type >> name >> slashes >> std::ws, std::getline(in, note);
    if (line.rfind("typedef struct {", 0) == 0) fields.clear();
    else if (line.rfind("  ", 0) == 0 && name.back() == ';') name.pop_back(), fields.push_back({name, note, type == "us_tensor", type == "float", false});
    else if (line.rfind("} us_", 0) == 0) {
      const std::string op = name.substr(0, name.rfind("_args;"));
      for (const Op& c : CALLS)
        if (c.name == op) ops.push_back(c);
      check(op + ": the test calls it", !ops.empty() && ops.back().name == op);
      for (Field& f : fields) f.written = f.tensor && is_written(op, f.name, f.note);
      ops.back().fields = fields;
    }
  }
  return ops;
}

constexpr uint32_t ROWS = 16, WIDE = 72, RANK = 16;
constexpr uint64_t PLACE = 4096, ALL = 192 << 10, SLOT = 2 * ROWS * WIDE;
/** The held-back products' own tensors, after the operation's. */
enum Own : uint64_t { SEEN = 128 << 10, X = SEEN + PLACE, Y = X + PLACE, A = Y + PLACE, G = A + 2 * PLACE, W = G + 2 * PLACE };

T matrix(uint32_t arena, uint64_t at, uint32_t cols = WIDE) { return view(arena, at, US_BF16, {ROWS, cols}); }

T tensor_of(const Op& op, const Field& f, uint32_t arena, uint64_t at) {
  if (op.name == "us_quantize_fp8" && f.name == "out") return view(arena, at, US_FP8_128, {128, 128});
  if (op.name == "us_matmul" && f.name == "b") return view(arena, at, US_BF16, {WIDE, WIDE});
  if (op.name == "us_matmul" && f.name == "bias") return view(arena, at, US_BF16, {WIDE});
  return matrix(arena, at);
}
uint64_t size_of(const T& t) { return us_bytes(t.dtype, us_numel(&t)); }

struct Argument { const Field* field; T t; uint64_t at, bytes; };

/** The operation's arguments as words, and where its tensors lie. */
std::vector<Argument> lay_out(const Op& op, uint32_t arena, std::vector<uint32_t>& words) {
  std::vector<Argument> list;
  uint64_t at = 0;
  for (const Field& f : op.fields) {
    if (!f.tensor) {
      uint32_t one = f.name == "trans_b";
      const float factor = f.name != "beta";
      if (f.real) memcpy(&one, &factor, 4);
      words.push_back(one);
      continue;
    }
    const T t = tensor_of(op, f, arena, at);
    words.resize(words.size() + sizeof t / 4);
    memcpy(&words[words.size() - sizeof t / 4], &t, sizeof t);
    list.push_back({&f, t, at, size_of(t)});
    at += (size_of(t) + PLACE - 1) / PLACE * PLACE;
  }
  return list;
}

int32_t matmul(T c, T a, T b, uint32_t trans_a, uint32_t trans_b, float beta) {
  us_matmul_args args{c, a, b, {}, trans_a, trans_b, 1, beta};
  return us_matmul(&args);
}
/** A product that waits and writes the place, or reads it. */
int32_t write_product(uint32_t h, uint64_t at) { return matmul(matrix(h, at), matrix(h, X), view(h, W, US_BF16, {WIDE, WIDE}), 0, 1, 0); }
int32_t read_product(uint32_t h, uint64_t at) { return matmul(matrix(h, Y), matrix(h, at), view(h, W, US_BF16, {WIDE, WIDE}), 0, 1, 0); }
/** A thin product whose result lies there and is copied into the ring; a gradient that reads that result. */
int32_t write_thin(uint32_t h, uint64_t at) { return matmul(matrix(h, at, RANK), matrix(h, X), view(h, A, US_F32, {RANK, WIDE}), 0, 1, 0); }
int32_t read_thin(uint32_t h, uint64_t at) { return matmul(view(h, G, US_F32, {RANK, WIDE}), matrix(h, at, RANK), matrix(h, X), 1, 0, 1); }

using Products = std::function<int32_t(uint32_t arena)>;
int32_t none(uint32_t) { return US_OK; }

struct Outcome { bool ok = false; Bytes arena; long calls_before = 0, calls = 0; };

/** Products, the operation, products, on a new machine; `flip`: a byte of the start that differs, or none. */
Outcome run(const Op& op, bool hopper, Products before, Products after, uint64_t flip = ALL) {
  fake::reset();
  fake::settings.hopper = hopper;
  fake::seed(7);
  Outcome o;
  o.arena.resize(ALL);
  for (uint8_t& b : o.arena) b = static_cast<uint8_t>(fake::random());
  if (flip < ALL) o.arena[flip] ^= 1;
  o.ok = us_open(0) == US_OK;
  auto must = [&](int32_t rc) { o.ok = o.ok && rc == US_OK; };
  const uint32_t h = alloc(ALL);
  us_host_slot_args place{0, SLOT, 0};
  us_stash_args stash{0, matrix(h, SEEN)};
  us_fetch_args fetch{matrix(h, SEEN), 0};
  us_slot_wait_args wait{0};
  must(upload(h, 0, o.arena)), must(us_host_slot(&place)), must(us_stash(&stash)), must(us_slot_wait(&wait));
  std::vector<uint32_t> words;
  lay_out(op, h, words);
  o.ok = o.ok && words.size() == op.words;
  const long start = fake::calls;
  must(before(h));
  const long ready = fake::calls;
  must(o.ok ? op.call(words.data()) : US_INVALID);
  o.calls_before = ready - start, o.calls = fake::calls - ready;
  must(us_slot_wait(&wait)), must(after(h));
  must(us_fetch(&fetch)), must(us_slot_wait(&wait)), must(download(h, 0, o.arena)), must(us_close());
  return o;
}

bool equal(const Bytes& a, const Bytes& b, uint64_t from, uint64_t bytes) { return memcmp(&a[from], &b[from], bytes) == 0; }

/** The fake's operation changes what the notes call written, nothing else, and depends on every tensor that is read. */
void fake_is_right(const Op& op, const std::vector<Argument>& args, const Outcome& alone) {
  const Outcome start = run(CALLS.back(), false, none, none);  // a wait for a slot
  Bytes untouched = alone.arena;
  for (const Argument& a : args) {
    const std::string what = op.name + ", " + a.field->name;
    check(what + ": the fake writes it when the header says so", equal(alone.arena, start.arena, a.at, a.bytes) != a.field->written);
    if (a.field->written) {
      memcpy(&untouched[a.at], &start.arena[a.at], a.bytes);
      continue;
    }
    Bytes other = run(op, false, none, none, a.at).arena;
    other[a.at] ^= 1;
    check(what + ": the fake reads it", other != alone.arena);
  }
  memcpy(&untouched[SEEN], &start.arena[SEEN], SLOT);  // what a stash stashed is seen there
  check(op.name + ": the fake writes nothing else", untouched == start.arena);
}

void same(const std::string& what, const Op& op, bool waits, Products before, Products after) {
  const Outcome held = run(op, true, before, after), at_once = run(op, false, before, after);
  check(what, held.ok && at_once.ok && held.arena == at_once.arena && (!waits || held.calls_before == 0));
}

void roles_of(const Op& op, const std::vector<Argument>& args) {
  const Outcome alone = run(op, true, none, none);
  for (const Argument& a : args) {
    const uint64_t at = a.at;
    const std::string what = op.name + ", " + a.field->name + ": ";
    auto writes = [at](uint32_t h) { return write_product(h, at); };
    auto reads = [at](uint32_t h) { return read_product(h, at); };
    auto copied = [at](uint32_t h) { return write_thin(h, at) || us_fence(); };
    auto reads_copy = [at](uint32_t h) { return read_thin(h, at); };
    same(what + "a product that writes it runs first", op, true, writes, none);
    if (a.field->written) {
      same(what + "a product that reads it runs first", op, true, reads, none);
      same(what + "a thin result's copy is forgotten once it is written", op, false, copied, reads_copy);
    } else {
      const Outcome held = run(op, true, reads, none);
      check(what + "a product that reads it too goes on waiting", held.ok && held.calls_before == 0 && held.calls == alone.calls);
    }
  }
}

/** The products above do wait, and a gradient does read the copy: else it would launch the thin product. */
void means_are_right() {
  fake::reset();
  const long start = (us_open(0), fake::calls);
  const uint32_t h = alloc(ALL);
  bool ok = write_thin(h, 0) == US_OK;
  const long ready = fake::calls;
  ok = ok && ready > start && read_thin(h, 0) == US_OK && fake::calls == ready;
  check("a gradient reads a thin result's copy", ok && us_close() == US_OK);
}

}  // namespace

void test_roles() {
  means_are_right();
  const std::vector<Op> ops = read_header();
  std::string names;
  size_t written = 0, tensors = 0;
  for (const Op& op : ops) {
    names += (names.empty() ? "" : " ") + op.name;
    std::vector<uint32_t> words;
    const std::vector<Argument> args = lay_out(op, 1, words);
    check(op.name + ": its arguments are understood", words.size() == op.words && (args.empty() || args.back().at + args.back().bytes <= SEEN));
    if (args.empty()) continue;
    const Outcome alone = run(op, false, none, none);
    check(op.name + " runs", alone.ok);
    fake_is_right(op, args, alone);
    roles_of(op, args);
    for (const Argument& a : args) tensors++, written += a.field->written;
  }
  std::string listed;
  std::istringstream list(US_OP_LIST);
  for (std::string entry; list >> entry;) listed += (listed.empty() ? "" : " ") + entry.substr(0, entry.find(':'));
  check("every operation of the header: " + names, names == listed && ops.size() == CALLS.size());
  printf("roles: %zu operations, %zu tensors, %zu of them written\n", ops.size(), tensors, written);
  fake::reset();
}
