#!/bin/bash
# Builds the simulator and the host over it: $1/libunsloth_metal.so (the C ABI on Linux), $1/libfakemetal.so beside it.
#   tests/metal/sim/build.sh .cache/metal-sim && UNSLOTH_LIB_METAL=$PWD/.cache/metal-sim/libunsloth_metal.so deno …
# The kernels are compiled for the CPU the first time a process opens the library, into $1/kernels.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$1" && out=$(cd "$1" && pwd)
"$root/metal/build.sh" --source "$out/unsloth.metal"
clang-19 -O2 -Wall -Wextra -Wno-unused-parameter -fPIC -shared -fvisibility=hidden -DMSLC="\"$here/tools/mslc.sh\"" \
  -Wl,-soname,libfakemetal.so "$here/fake/fake_metal.c" "$here/shim/msl_rt.c" -o "$out/libfakemetal.so" -lpthread -ldl
clang-19 -std=c23 -O2 -g -Wall -Wextra -Werror -Wno-c23-extensions -ffreestanding -fvisibility=hidden -fPIC "--embed-dir=$out" \
  ${HOST_FLAGS-} -shared "$root"/metal/host/*.c -o "$out/libunsloth_metal.so" -L"$out" -lfakemetal -Wl,-rpath,'$ORIGIN' \
  -Wl,--no-undefined -lc
