// The two shapes of most launches.
#include "library.h"

_Static_assert(sizeof(struct EachArgs) == 32 && sizeof(struct RowArgs) == 32, "as in Metal");

// A launch over n elements, `per` a thread.
int32_t each(struct call c, uint64_t n, uint32_t per, struct EachArgs args) {
  if (n == 0) return US_OK;
  args.n = n;
  c.args = &args, c.args_bytes = sizeof args, c.threads = 256, c.grid[0] = groups_of(n, 256ull * per);
  c.work = 30.0 * 4 * c.count * (double)n;
  return launch(&c);
}

// A launch of a threadgroup a row: a simdgroup for short rows.
int32_t each_row(struct call c, uint64_t rows, struct RowArgs args) {
  if (rows == 0) return US_OK;
  c.args = &args, c.args_bytes = sizeof args, c.threads = args.cols <= 256 ? 32 : 256, c.grid[0] = rows;
  c.work = 30.0 * 4 * c.count * (double)rows * (double)args.cols;
  return launch(&c);
}
