#!/bin/bash
# Builds the simulator and the host over it into $1: libunsloth_metal.so (the C ABI on Linux), libfakemetal.so (Metal),
# kernels.so (the .metal sources compiled for the CPU). Nothing is done that is done already.
#   tests/metal/sim/build.sh .cache/metal && UNSLOTH_LIB_METAL=$PWD/.cache/metal/libunsloth_metal.so deno …
# Needs clang-19, lld-19 and node. HOST_FLAGS and MSL_* reach the compilers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$1" && out=$(cd "$1" && pwd)
exec 9>"$out/lock" && flock 9 # tests of several runtimes may want it at once
key=$(cat "$root"/metal/host/* "$root"/metal/kernels/* "$root"/metal/build.sh "$root"/ffi/*.h $(find "$here" -type f | LC_ALL=C sort) \
  <(env | grep -E '^(MSL_|HOST_FLAGS)' | LC_ALL=C sort || true) | sha256sum)
[ -f "$out/key" ] && [ "$(cat "$out/key")" = "$key" ] && exit 0
"$root/metal/build.sh" --source "$out/unsloth.metal"
clang-19 -O2 -Wall -Wextra -Wno-unused-parameter -fPIC -shared -fvisibility=hidden ${FAKE_FLAGS-} \
  -Wl,-soname,libfakemetal.so "$here"/fake/*.c "$here"/runtime/*.c -o "$out/libfakemetal.so" -lpthread -ldl
MSL_LINK="$out/libfakemetal.so -Wl,-rpath,\$ORIGIN" "$here/compile.sh" "$out/unsloth.metal" "$out/kernels.so"
clang-19 -std=c23 -O2 -g -Wall -Wextra -Werror -Wno-c23-extensions -ffreestanding -fvisibility=hidden -fPIC "--embed-dir=$out" \
  ${HOST_FLAGS-} -shared "$root"/metal/host/*.c -o "$out/libunsloth_metal.so" "-L$out" -lfakemetal -Wl,-rpath,'$ORIGIN' \
  -Wl,--no-undefined -lc
echo "$key" >"$out/key"
