/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "2db0dffc098de6b1ef168e44ff636daaecb9da29b8dbfcdd804e03b516cc79ec";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "61e8025c5c52c49504f82437c9a603c18e740e57427185e1210f8258b1aa4056";
