/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "c8214a69d650b97b069827968741394d6107191b19bffd6345425b81c9c1e9d5";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "e318343ec7d6d30e4b198c13e5787f57d5634419f35802eeeab4862abc40ecf6";
