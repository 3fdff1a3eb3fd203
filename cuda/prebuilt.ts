/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "9b19f733f1eb7a569e7217071dba0dca2157695af1e7244f0494ea8f5b920186";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "7a22176adfc1c1fad2c35dbb6418fca82443caaa59298fff26e45938c2fb89a6";
