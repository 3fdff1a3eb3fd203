/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "57f981455db90eebf14dc16ef40100434cdce14614ffec266371c39236bad582";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "b3e0defe38f55a538dc83a9e3ca2d481cdc429a89b7025d1879f530e83c79131";
