/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "79f5c8524daa38d6d74c702c701b1d12444a088d432eb49982b78658ed173cc0";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "3dccccebf6b8f4d569ed787b02d23a590ac56f816a517f97d0fb0abe5c4699a9";
