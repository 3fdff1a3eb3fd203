/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "4cb25b1c18b49ef5f9db5d3b8b4931c12faf821d5ebabd56c978db89b8f83226";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "213aa211f77850a92f2ef9074369a1e908a433e88efff8c4aeb81976c3958169";
