/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "11bb13c84218b56da3b9be36955b1f548be48a8387c0928f23f0e035fbb6059f";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "a8cc3c34381504ff3152e10209a01846cfddcadc2741463139581f438acb8c04";
