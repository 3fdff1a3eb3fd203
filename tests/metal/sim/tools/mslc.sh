#!/bin/bash
# mslc.sh in.metal out.so: the fake newLibraryWithSource's compiler
set -e
here=$(cd "$(dirname "$0")" && pwd) && . "$here/cxxflags.sh"
node "$here/msl2cpu.mjs" "$1" "$2.cpp" 2> "$2.log" || { cat "$2.log" >&2; exit 1; }
$MSL_CXX $MSL_TARGET $MSL_FLAGS -DMSL_AS ${MSL_SGM--DMSL_SGM_LEADER} $MSL_EXTRA -I "$here/../shim" -shared -fuse-ld=lld-19 -o "$2" "$2.cpp" ${MSL_RT_LIB:+"-x" none "$MSL_RT_LIB" "-Wl,-rpath,$(dirname "$MSL_RT_LIB")"}
