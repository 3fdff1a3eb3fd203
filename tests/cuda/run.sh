#!/bin/bash
# Everything about CUDA's host part that a machine without a GPU can prove: tests/cuda/run.sh [step…]. Steps: asan tsan pending
# slips (all by default); mutants: every slip tried, some minutes; quick: all tests without sanitizers. Each prints one line or fails. Needs g++ (with libasan, libubsan, libtsan) and python3.
set -euo pipefail
cd "$(dirname "$0")" && here=$PWD && root=$(cd ../.. && pwd)
work=$root/.cache/cuda-run
mkdir -p "$work"
steps=${*:-asan tsan pending slips}
fail() { echo "FAIL $*" >&2 && exit 1; }
say() { printf '%-9s %s\n' "$@"; }

# What sanitizers look into is compiled without optimisation and, where it is there, by clang: half of g++'s time.
export SANITIZING_CXX=$(command -v clang++-19 || echo g++)
# build NAME FLAGS [COMPILER]: cuda/host, the fake runtime and the tests in one program, $work/NAME/host_test
build() {
  (
    flock 9 # host_test.ts may build the same at once
    mkdir -p "$work/$1"
    newest=$(ls -t "$root"/cuda/host/* "$root"/cuda/kernels/*.h "$root"/ffi/*.h sim/*.* sim/include/* host/* run.sh | head -1)
    [ "$work/$1/host_test" -ot "$newest" ] || exit 0
    rm -f "$work/$1"/*
    for f in "$root"/cuda/host/*.cpp sim/*.cpp host/*.cpp; do
      case $f in */cuda/host/*) o=host_ fast= ;; sim/*) o=sim_ fast=-O2 ;; *) o=test_ fast= ;; esac # the fake multiplies
      echo "${3:-g++} -std=c++17 -g1 -Wall -Wextra -Isim/include $2 $fast -c $f -o $work/$1/$o$(basename "$f").o"
    done | xargs -P "$(nproc)" -I{} sh -c '{}' || fail "$1 does not compile"
    ${3:-g++} $2 "$work/$1"/*.o -o "$work/$1/host_test" -lpthread
  ) 9>"$work/$1.lock"
}

# $work/small_ring.o: what waits, with a ring of 12 KiB
small_ring() {
  sed 's/size_t{64} << 20/size_t{12} << 10/; s#RING / 16#RING / 4#' "$root/cuda/host/pending_state.cpp" >"$work/small_ring.cpp"
  ! cmp -s "$work/small_ring.cpp" "$root/cuda/host/pending_state.cpp" || fail "pending: the ring is not where this script looks for it"
  g++ -std=c++17 -O1 -Isim/include "-I$root/cuda/host" -c "$work/small_ring.cpp" -o "$work/small_ring.o"
}

step_asan() {
  build asan "-O0 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" "$SANITIZING_CXX"
  "$work/asan/host_test" machines library memory graphs profile offload roles read read_failures failures threads few_cycles >"$work/log" 2>&1 || fail "asan: $(head -40 "$work/log")"
  "$work/asan/host_test" pending 1 100 >"$work/log2" 2>&1 || fail "asan: $(head -40 "$work/log2")"
  say asan "AddressSanitizer and UBSan: $(tail -1 "$work/log"); $(grep roles: "$work/log"); $(grep failures: "$work/log"); $(grep pending: "$work/log2")"
}
step_tsan() {
  build tsan "-O0 -fsanitize=thread" "$SANITIZING_CXX"
  TSAN_OPTIONS=halt_on_error=1 setarch -R "$work/tsan/host_test" threads read >"$work/log" 2>&1 || fail "tsan: $(head -40 "$work/log")"
  say tsan "ThreadSanitizer, four threads and the file's readers: $(tail -1 "$work/log")"
}
step_pending() {
  build plain "-O2"
  "$work/plain/host_test" pending 1000 1000 >"$work/log" || fail "pending: $(head -20 "$work/log")"
  "$work/plain/host_test" cycles >"$work/log3" || fail "cycles: $(head -20 "$work/log3")"
  # the same with a ring that comes round after a few products
  small_ring
  g++ $(ls "$work"/plain/*.o | grep -v host_pending_state) "$work/small_ring.o" -o "$work/small_ring" -lpthread
  "$work/small_ring" pending 5000 500 >"$work/log2" || fail "pending, small ring: $(head -20 "$work/log2")"
  say pending "held back as at once: $(grep pending: "$work/log"); a ring of 12 KiB: $(grep pending: "$work/log2"); $(tail -1 "$work/log3") over 10,000 openings"
}
step_quick() {
  build plain "-O2"
  "$work/plain/host_test" machines library memory graphs profile offload roles read read_failures failures threads few_cycles >"$work/log3" || fail "quick: $(grep FAIL "$work/log3")"
  "$work/plain/host_test" pending 1 200 >"$work/log4" || fail "quick: $(grep FAIL "$work/log4")"
  say quick "$(tail -1 "$work/log3"); $(grep roles: "$work/log3"); $(grep pending: "$work/log4")"
}
step_slips() { # that the list of slips still fits the sources
  python3 host_mutants.py "$root" >"$work/slips" || fail "slips: $(grep MISSED "$work/slips")"
  say slips "$(cat "$work/slips")"
}
step_mutants() {
  build plain "-O2"
  small_ring
  build asan "-O0 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" "$SANITIZING_CXX"
  python3 host_mutants.py "$root" "$work" >"$work/mutants" || fail "mutants: $(grep MISSED "$work/mutants")"
  say mutants "$(wc -l <"$work/mutants") slips in the host, all noticed"
}
for s in $steps; do "step_$s"; done
