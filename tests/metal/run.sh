#!/bin/bash
# Everything about Metal that Linux can prove below TypeScript: tests/metal/run.sh [step…]. Steps: lint dylib native asan
# tsan barriers host qemu (all by default); each prints one line or fails. What runs through FFI is in *_test.ts beside this.
#   apt-get install -y --no-install-recommends clang-19 lld-19 llvm-19 libclang-rt-19-dev qemu-user gcc-aarch64-linux-gnu \
#     libc6-dev-arm64-cross libstdc++-12-dev-arm64-cross
set -euo pipefail
cd "$(dirname "$0")" && here=$PWD && root=$(cd ../.. && pwd)
out=$root/.cache/metal work=$root/.cache/metal-run
mkdir -p "$work"
steps=${*:-lint dylib native asan tsan barriers host qemu}
text=$work/unsloth.metal
"$root/metal/build.sh" --source "$text"
fail() { echo "FAIL $*" >&2 && exit 1; }
say() { printf '%-9s %s\n' "$@"; }

# test_program NAME OPTIMIZATION KERNEL_FLAGS C_FLAGS: abi_test with host, fake, runtime and kernels of $text in one program
objects() { # NAME C_FLAGS
  mkdir -p "$work/$1"
  for f in "$root"/metal/host/*.c; do
    clang-19 -std=c23 -O1 -g -Wno-c23-extensions "--embed-dir=$work" $2 -c "$f" -o "$work/$1/host_$(basename "$f").o"
  done
  for f in abi/*.c sim/fake/*.c; do
    clang-19 -O1 -g -Wno-unused-parameter -DLINKED -DSTATIC_KERNELS $2 -c "$f" -o "$work/$1/$(basename "$(dirname "$f")")_$(basename "$f").o"
  done
  # the runtime itself is not instrumented for races: it is what orders the GPU threads
  for f in sim/runtime/*.c; do clang-19 -O1 -g ${3-$2} -c "$f" -o "$work/$1/runtime_$(basename "$f").o"; done
}
kernels() { MSL_FLAGS="$3" MSL_SPACES= MSL_FORM=${4-} sim/compile.sh "$1" "$2"; } # TEXT OBJECT FLAGS
link() { clang++-19 "$work/$1"/*.o "$2" $3 -o "$4" -lm -lpthread -ldl; }          # OBJECTS KERNELS FLAGS PROGRAM

step_lint() {
  node sim/lint.mjs "$text" >"$work/lint" || fail "lint: $(cat "$work/lint")"
  node lint_test.mjs >"$work/lint_test" || fail "lint's own tests: $(cat "$work/lint_test")"
  say lint "$(tail -1 "$work/lint"); its own tests: $(tail -1 "$work/lint_test")"
}
step_dylib() {
  local file=$root/metal/prebuilt/darwin-arm64/libunsloth_metal.dylib
  "$root/metal/build.sh" "$work/dylib" >/dev/null
  cmp "$work/dylib/libunsloth_metal.dylib" "$file" || fail "dylib: the committed one is not what the sources give; run metal/build.sh"
  grep -q "\"$("$root/metal/build.sh" --hash)\"" "$root/metal/prebuilt.ts" || fail "dylib: metal/prebuilt.ts has another hash"
  grep -q "\"$(sha256sum <"$file" | cut -d' ' -f1)\"" "$root/metal/prebuilt.ts" || fail "dylib: metal/prebuilt.ts has another SHA-256"
  python3 sim/verify_macho.py "$file" us_map us_cache us_peak_reset \
    $(grep -ohE 'US_API u?int32_t us_\w+\(' "$root"/ffi/unsloth.h "$root"/ffi/unsloth_ops.h | grep -oE 'us_\w+' | sort -u) >"$work/macho" ||
    fail "dylib: $(cat "$work/macho")"
  say dylib "rebuilt to the same $(stat -c %s "$file") bytes; Mach-O, exports and $(grep -oE 'hashes ok [0-9/]+' "$work/macho")"
}
native() { # the results that all other builds are held to, once a run
  [ -z "${has_native-}" ] || return 0
  sim/build.sh "$out"
  clang-19 -O1 -g -Wall -Wextra -DWITH_DLOPEN abi/*.c -o "$work/abi_test" -lm -ldl -lpthread
  "$work/abi_test" "$out/libunsloth_metal.so" "$work/results" >"$work/native.log" || fail "native: $(cat "$work/native.log")"
  has_native=1
}
step_native() {
  native
  for e in NO_DEVICE=1 FAIL=library FAIL=pipeline FAIL=buffer FAIL=mapping FAMILY=1008 BYTES=4000000; do
    env "FAKE_METAL_$e" "$work/abi_test" "$out/libunsloth_metal.so" >"$work/log" || fail "native with $e: $(cat "$work/log")"
    ! grep -q FAIL "$work/log" || fail "native with $e: $(cat "$work/log")"
  done
  objects plain ""
  kernels "$text" "$work/faithful.o" -O1 && link plain "$work/faithful.o" "" "$work/faithful"
  for schedule in 0 1 2 3; do
    "$work/faithful" $schedule "$work/other" >"$work/log" || fail "schedule $schedule: $(cat "$work/log")"
    python3 abi/compare.py "$work/results" "$work/other" >"$work/log" || fail "schedule $schedule: $(cat "$work/log")"
  done
  say native "$(cat "$work/native.log"); faithful matrices under four schedules: $(cat "$work/log")"
}
step_asan() {
  native
  local san="-fsanitize=address,undefined -fno-sanitize=vptr,function -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
  objects asan "$san"
  kernels "$text" "$work/asan.o" "-O1 -gline-tables-only $san" -DMSL_SGM_LEADER && link asan "$work/asan.o" "$san" "$work/asan_test"
  ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0 "$work/asan_test" 0 "$work/other" >"$work/log" 2>&1 || fail "asan: $(head -40 "$work/log")"
  python3 abi/compare.py "$work/results" "$work/other" >/dev/null || fail "asan: other results"
  say asan "AddressSanitizer and UBSan: $(tail -1 "$work/log")"
}
# lines for the report; a call that stays a call compiles in half the time
TSAN="-O1 -gline-tables-only -fno-inline-functions -fsanitize=thread"
tsan_objects() { [ -n "${has_tsan-}" ] || { objects tsan "" "-DMSL_TSAN" && has_tsan=1; }; }
step_tsan() {
  tsan_objects
  kernels "$text" "$work/tsan.o" "$TSAN" && link tsan "$work/tsan.o" -fsanitize=thread "$work/tsan_test"
  # a group's name limits the run to the operations
  TSAN_OPTIONS=halt_on_error=1 FAKE_METAL_WORKERS=1 setarch -R "$work/tsan_test" 0 "$work/other" elementwise norm rows loss matmul attention cache optimizer \
    >"$work/log" 2>&1 || fail "tsan: $(grep -m1 -A12 WARNING "$work/log" || tail -5 "$work/log")"
  say tsan "ThreadSanitizer, a fiber a GPU thread: $(tail -1 "$work/log")"
}
# A barrier's file decides which tests run.
tests_of() { # FILE
  case $1 in
    norm | columns) echo norm ;; embed | rope | row_norm) echo rows ;; cross_entropy) echo loss ;; gemm | gemm_rows) echo matmul ;;
    attention | attention_bwd) echo attention ;; attention_cached) echo cache ;; optimizer | optimizers | adafactor) echo optimizer ;;
    common) echo "norm rows loss matmul attention cache optimizer" ;; *) echo "no tests know $1" >&2 && exit 1 ;;
  esac
}
barrier_mutant() { # LINE: prints who noticed that the barrier on this line was passed over
  local by="" file tests out
  file=$(head -n "$1" "$work/f32.metal" | grep '^#line' | tail -1 | cut -d'"' -f2) && tests=$(tests_of "${file%.metal}")
  export ABI_TEST_F32=1 MSL_REMOVED=$1
  out=$(TSAN_OPTIONS=halt_on_error=1 FAKE_METAL_WORKERS=1 timeout 120 setarch -R "$work/f32_tsan" 0 /dev/null $tests 2>&1) ||
    by="tsan $(grep -m1 -oE 'race [^ ]*' <<<"$out" | sed 's#.*/##')"
  for s in 0 1 2 3; do
    [ -z "$by" ] || break
    { timeout 120 "$work/f32_plain" $s "$work/barrier$1" $tests >/dev/null && python3 abi/compare.py "$work/f32 $tests.results" "$work/barrier$1" >/dev/null; } ||
      by="results of schedule $s"
  done
  rm -f "$work/barrier$1"
  echo "$file: $(sed -n "$1p" "$work/f32.metal" | tr -s ' ') line $1: ${by:-MISSED}"
}
step_barriers() {
  local all="norm rows loss matmul attention cache optimizer"
  tsan_objects && objects plain ""
  # f32 alone, and each barrier is passed over when MSL_REMOVED is its line: compiled once for all of them
  grep -vE '(_bf16|_f16)"|^GEMM\((bfloat|half)' "$text" | sed -E 's/(name<float(, D)?>;) *\\$/\1/' >"$work/f32.metal"
  awk '{ sub(/(threadgroup|simdgroup)_barrier\(/, "MSL_UNLESS(" NR ") &"); print }' "$work/f32.metal" >"$work/f32_barriers.metal"
  kernels "$work/f32_barriers.metal" "$work/f32_tsan.o" "$TSAN" && link tsan "$work/f32_tsan.o" -fsanitize=thread "$work/f32_tsan" &
  kernels "$work/f32_barriers.metal" "$work/f32_plain.o" -O1 && link plain "$work/f32_plain.o" "" "$work/f32_plain"
  wait $! || fail "barriers: the kernels do not compile"
  # with every barrier in its place all is well
  ABI_TEST_F32=1 TSAN_OPTIONS=halt_on_error=1 FAKE_METAL_WORKERS=1 setarch -R "$work/f32_tsan" 0 /dev/null $all >"$work/log" 2>&1 ||
    fail "barriers: $(grep -m1 -A12 WARNING "$work/log" || tail -5 "$work/log")"
  for tests in "$all" $all; do
    ABI_TEST_F32=1 "$work/f32_plain" 0 "$work/f32 $tests.results" $tests >"$work/log" || fail "barriers: $(cat "$work/log")"
  done
  export -f barrier_mutant tests_of
  export work here
  grep -nE '(threadgroup|simdgroup)_barrier\(' "$work/f32.metal" | cut -d: -f1 |
    xargs -P "$(nproc)" -I{} bash -c 'cd "$here" && set -e && barrier_mutant {}' >"$work/barriers"
  [ "$(wc -l <"$work/barriers")" = "$(grep -cE '(threadgroup|simdgroup)_barrier\(' "$work/f32.metal")" ] || fail "barriers: not all were tried"
  ! grep MISSED "$work/barriers" || fail "barriers: removed and not noticed"
  say barriers "$(wc -l <"$work/barriers") removed one by one, all caught; $(grep -c tsan "$work/barriers") by ThreadSanitizer"
}
step_host() {
  native
  python3 host_mutants.py "$root" "$out" "$work" >"$work/host" || fail "host: $(grep MISSED "$work/host")"
  say host "$(wc -l <"$work/host") slips in the host, all noticed"
}
step_qemu() {
  native
  local arm=$work/arm
  mkdir -p "$arm" && cp "$text" "$arm/"
  MSL_CXX="clang++-19 --target=aarch64-linux-gnu" MSL_ARCH=-march=armv8.2-a+fp16 MSL_FLAGS="-nostdlib -O1" sim/compile.sh "$text" "$arm/kernels.so"
  clang-19 --target=aarch64-linux-gnu -O2 -Wno-unused-parameter -rdynamic sim/machorun.c abi/*.c sim/fake/*.c sim/runtime/*.c -o "$arm/machorun" -fuse-ld=lld-19 -lpthread -ldl -lm
  FAKE_METAL_DIR=$arm FAKE_METAL_WORKERS=1 qemu-aarch64 -L /usr/aarch64-linux-gnu "$arm/machorun" "$root/metal/prebuilt/darwin-arm64/libunsloth_metal.dylib" "$work/other" \
    >"$work/log" || fail "qemu: $(cat "$work/log")"
  python3 abi/compare.py "$work/results" "$work/other" >"$work/log2" || fail "qemu: $(cat "$work/log2")"
  say qemu "the shipped dylib: $(tail -1 "$work/log"); $(cat "$work/log2")"
}
for s in $steps; do "step_$s"; done
