/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "3bd7c104be3debc74af454f28014e7d1eefa58c6cf7fae6238534c77b67efdd8";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "73f29433a6dd2b63f718ecdca558876447031e83530e1cfcd96b428ca7f8c362";
