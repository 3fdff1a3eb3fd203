/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "c31e7f34fb12286ba0f91e622912602bad2664918ecccc3c9905e25f6a875b70";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "f1e5e2812b0ae5304f6164f566ec44c802a94cc1b60dd68cafbb357d7ce4ebf2";
