/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "e485f772c351d2f515c7d33e110b5d5a0a658b255fc0b3d251d3958ec908a6e9";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "19d74e5009ca874a7f719714761d3f41dd9585bcc58e3f836b15b406f5629b35";
