/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "a17985481baab2c85cf46e7aecbd5b54c245a5b8d240e15d916861788d6f0896";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "cb0d3eae1a7855a5a1c94dee9f9c9e783364c26d45469c96d805185f925807af";
