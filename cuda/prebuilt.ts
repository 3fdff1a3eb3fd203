/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "8c279ab54aedd43b7d508454c3698b0e1f62628c8013da7a527ab8a6df3ad35d";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "d809b4baeeb4714fb0e6f4e32a24eda771337009319ef9b2b6d139f5ccdedace";
