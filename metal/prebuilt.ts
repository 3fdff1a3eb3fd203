/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "73055506a94be9b1a5988728c6b2b9e3c6903adbc38d0914bf1e0df932e53603";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "d98cca2aea7db9151164367c633f293262e49db16ef7633c772d38a65d50efad";
