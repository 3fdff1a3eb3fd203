/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "0719c2e3e458f75d139fc5b3a9d8995b9866a1f0af7b76a4d1cc5d7a01e1ace3";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "61e8025c5c52c49504f82437c9a603c18e740e57427185e1210f8258b1aa4056";
