/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "9e3538979515a2589f9f44aadc46915a65994cb3295a91315930494ea116d43a";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "5dc52ab3c20b2b0e4c70f670e9b2ac7566cc220a80470ae3106a70c3e577944b";
