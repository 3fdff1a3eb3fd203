#!/bin/bash
# Builds cuda/prebuilt/linux-x64/libunsloth_cuda.so and notes in cuda/prebuilt.ts which sources it came from.
#   cuda/build.sh              every target, linked for glibc 2.17: what ships
#   ARCHS=90a PTX= cuda/build.sh   one target, for development
#   cuda/build.sh --hash       prints the hash of the sources and builds nothing
# JOBS: compilations at a time (2). CUDA_WHEELS: a folder with nvidia/cu13 (default .cuda, filled from pinned wheels).
# Needs g++, python3 with pip, and (for what ships) `pip install ziglang==0.17.1`: no root, no CUDA install, no GPU. All five
# wheels in one pip command: a second `--target` run skips an existing folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
sources=(cuda/host/*.h cuda/host/*.cpp cuda/kernels/*.h cuda/kernels/*.cu cuda/kernels/*.cuh cuda/kernels/*.inc
  cuda/exports.map cuda/build.sh ffi/unsloth.h ffi/unsloth_ops.h ffi/unsloth_extras.h)
hash=$(for f in "${sources[@]}"; do sha256sum <"$f"; done | sha256sum | cut -d' ' -f1)
[ "${1:-}" = --hash ] && { echo "$hash"; exit 0; }

tools=${CUDA_WHEELS:-.cuda}
if [ ! -x "$tools/nvidia/cu13/bin/nvcc" ]; then
  python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target "$tools" \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85
fi
cu=$(cd "$tools/nvidia/cu13" && pwd)

targets=()
for a in ${ARCHS-80 86 89 90a 100 120}; do targets+=(-gencode "arch=compute_$a,code=sm_$a"); done
for p in ${PTX-80}; do targets+=(-gencode "arch=compute_$p,code=compute_$p"); done
device=(-O3 -DNDEBUG -std=c++17 --extended-lambda --expt-relaxed-constexpr -diag-suppress 177 -Xfatbin=-compress-all --compress-mode=size
  -Xcompiler "-fPIC,-fvisibility=hidden,-Wall" "${targets[@]}")
# The host part brings its C++ runtime with it: zig's, linked in, or g++'s.
host=(-O2 -DNDEBUG -std=c++17 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables -Wall "-I$cu/include")
if python3 -m ziglang version >/dev/null 2>&1; then
  cxx=(python3 -m ziglang c++ -target x86_64-linux-gnu.2.17)
  host+=(-fno-sanitize=undefined)
else
  echo "no ziglang: g++ links, for this machine's glibc and later" >&2
  cxx=(g++ -static-libstdc++ -static-libgcc)
fi

# One object a source, kept under the hash of all it is made of; JOBS of them at a time.
objects=.cuda/objects
mkdir -p "$objects" cuda/prebuilt/linux-x64
# A file and the project's headers it includes, each once, directly or not.
with_headers() {
  local files=("$1") i f dir
  for ((i = 0; i < ${#files[@]}; i++)); do
    dir=$(dirname "${files[i]}")
    for f in $(sed -n 's/^#include "\(.*\)"/\1/p' "${files[i]}"); do
      f=$(realpath --relative-to=. "$dir/$f")
      [[ " ${files[*]} " == *" $f "* ]] || files+=("$f")
    done
  done
  cat "${files[@]}"
}
compile() {
  case $1 in
    *.cu) nice -n 10 "$cu/bin/nvcc" --threads "${THREADS:-1}" "${device[@]}" -c -o "$2.tmp" "$1" ;;
    *) "${cxx[@]}" "${host[@]}" -c -o "$2.tmp" "$1" ;;
  esac && mv "$2.tmp" "$2"
}
list=()
for f in cuda/host/*.cpp cuda/kernels/*.cu; do
  case $f in *.cu) flags=${device[*]} ;; *) flags="${cxx[*]} ${host[*]}" ;; esac
  o=$objects/$(basename "$f").$(echo "$(with_headers "$f" | sha256sum) $flags" | sha256sum | cut -c1-24).o
  list+=("$o")
  [ -f "$o" ] && continue
  while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || true; done
  echo "compile $f" && compile "$f" "$o" &
done
wait || true
for o in "${list[@]}"; do [ -f "$o" ] || { echo "Cannot link: $o was not built" >&2; exit 1; }; done

# No -rdc, so no device link: any linker will do. The version script keeps cudart's and C++'s symbols inside; nodelete,
# because the runtime's exit handlers must outlive a dlclose.
out=cuda/prebuilt/linux-x64/libunsloth_cuda.so
"${cxx[@]}" -shared -s -Wl,--gc-sections -Wl,--hash-style=gnu -Wl,-z,nodelete -Wl,--version-script=cuda/exports.map -o "$out" "${list[@]}" \
  "-L$cu/lib" "-L$cu/lib64" -lcudart_static -ldl -lpthread -lrt
cat >cuda/prebuilt.ts <<END
/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as \`cuda/build.sh --hash\` prints it. */
export const SOURCES_SHA256 = "$hash";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "$(sha256sum <"$out" | cut -d' ' -f1)";
END
ls -l "$out"
