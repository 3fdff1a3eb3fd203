/** Written by metal/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `metal/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "177cc2d4facee2d1518893d598e49b12a04a1f2e565dd11391647da8279c05ba";
/** SHA-256 of prebuilt/darwin-arm64/libunsloth_metal.dylib. */
export const LIBRARY_SHA256 = "0dd34efe117f5c344efb2ec90fb8111aa2ab52b8a18589baedcc87191b22efb7";
