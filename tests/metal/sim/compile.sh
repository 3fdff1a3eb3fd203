#!/bin/bash
# compile.sh IN.metal OUT: an .metal text as a CPU object or library (.so), what newLibraryWithSource: is here.
#   MSL_CXX the compiler; MSL_FLAGS more flags; MSL_FORM= faithful simdgroup matrices instead of the fast ones
#   MSL_SPACES= without distinct address spaces, which sanitizers do not look into; MSL_LINK what a library is linked with
set -e
here=$(cd "$(dirname "$0")" && pwd)
node "$here/msl2cpu.mjs" "$1" "$2.cpp"
kind=-c
[ "${2%.so}" = "$2" ] || kind="-shared -fuse-ld=lld-19"
${MSL_CXX:-clang++-19} -std=c++17 -nostdinc -O3 ${MSL_ARCH--march=native} -ffp-contract=off -fno-strict-aliasing \
  -Xclang -cl-single-precision-constant -Xclang -ffloat16-excess-precision=none -fno-math-errno -fsigned-char -fPIC -fvisibility=hidden \
  -Wall -Wno-unused-function -Wno-unused-const-variable -Wno-reserved-identifier ${MSL_SPACES--DMSL_AS} ${MSL_FORM--DMSL_SGM_LEADER} \
  $MSL_FLAGS -I "$here" $kind -o "$2" "$2.cpp" $MSL_LINK
