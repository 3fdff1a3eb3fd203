/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "01f27af26a01e8d3787c6e117c30b9c9097bff9c8e16bf64eb80a18459eece67";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "0ab2aa8385189e89c7edd8ce5096ecd542e644b17528325d03be7b3325ae5795";
