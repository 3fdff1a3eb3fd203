#!/bin/bash
# Builds metal/prebuilt/darwin-arm64/libunsloth_metal.dylib on any Linux, without Apple's SDK, and metal/prebuilt.ts with
# the hashes. The same sources give the same bytes: CI builds again and compares.
#   metal/build.sh            what ships
#   metal/build.sh DIR        the library and the kernels' text into DIR, nothing else touched
#   metal/build.sh --source F only the kernels' text, for the lint and the simulator
#   metal/build.sh --hash     the hash of the sources
# Needs clang-19 (#embed) and lld-19. No other tool may touch the file afterwards: it would break the signature.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# In this order: a file uses what stands before it.
kernels=(args.h common.metal decode.metal elementwise.metal glu.metal dropout.metal norm.metal columns.metal rope.metal
  embed.metal row_norm.metal optimizer.metal optimizers.metal adafactor.metal cross_entropy.metal gemm.metal gemm_rows.metal attention.metal
  attention_bwd.metal attention_cached.metal)
text() { for f in "${kernels[@]}"; do echo "#line 1 \"$f\"" && cat "metal/kernels/$f"; done; }
sources=(metal/host/*.h metal/host/*.c metal/kernels/* metal/build.sh $(find metal/stubs -type f | LC_ALL=C sort) ffi/unsloth.h ffi/unsloth_ops.h ffi/unsloth_extras.h)
hash=$(for f in "${sources[@]}"; do sha256sum <"$f"; done | sha256sum | cut -d' ' -f1)
case "${1:-}" in
--hash) echo "$hash" && exit 0 ;;
--source) text >"$2" && exit 0 ;;
esac
out=${1:-metal/prebuilt/darwin-arm64}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
text >"$work/unsloth.metal"
objects=()
for f in metal/host/*.c; do
  o=$work/$(basename "$f" .c).o
  clang-19 --target=arm64-apple-macos14.0 -std=c23 -O2 -Wall -Wextra -Werror -Wno-c23-extensions -ffreestanding \
    -fno-stack-protector -nostdlibinc -fvisibility=hidden "--embed-dir=$work" -c "$f" -o "$o"
  objects+=("$o")
done
ld64.lld-19 -dylib -arch arm64 -platform_version macos 14.0 14.0 -install_name @rpath/libunsloth_metal.dylib \
  -L metal/stubs -F metal/stubs -lSystem -lobjc -framework Foundation -framework Metal -framework CoreGraphics \
  -dead_strip -adhoc_codesign -o "$work/libunsloth_metal.dylib" "${objects[@]}"
# Replaced by rename, never in place: macOS remembers signatures by file.
cp "$work/libunsloth_metal.dylib" "$out/.new" && mv "$out/.new" "$out/libunsloth_metal.dylib"
if [ -n "${1:-}" ]; then
  cp "$work/unsloth.metal" "$out/"
else
  cat >metal/prebuilt.ts <<END
/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as \`metal/build.sh --hash\` prints it. */
export const SOURCES_SHA256 = "$hash";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "$(sha256sum <"$out/libunsloth_metal.dylib" | cut -d' ' -f1)";
END
fi
ls -l "$out/libunsloth_metal.dylib"
