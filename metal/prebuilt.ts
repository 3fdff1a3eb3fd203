/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "82a45ffd2f228f0925895bc318559e45bb5df3980f504be15b4d9c51ca2d9529";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "3410e7e3f8bd38d6b4cc98984079be06a0d08f2a16acae50cc9cdf9d9245a0b6";
