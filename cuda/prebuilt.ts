/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "776467453072096a24464b6cb00f9e3d8a939e2bfee94eb8460883362943b533";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "8f7ca473e15b5835a8ee7c6c344dd945ef0dc2a7e755da90b524554a80f8e538";
