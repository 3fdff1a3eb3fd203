/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "f5e02e9a9fdde58ac3b3bbc746e74b64e206f2b6479994665a5c402ee6510171";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "f4e8a7e2c890470311df2cfa74c9f291de7928005f8bedaf86731dbf7e6a9ffd";
